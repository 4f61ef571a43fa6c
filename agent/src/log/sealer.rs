//! The repository's log key as a [`Sealer`] for slots and checkpoints.
//!
//! Each slot and checkpoint has a nonce of its own, drawn at random; a key is derived for each nonce, so that no pair of key and
//! counter is ever used twice. Source: ours; `format::seal`.

use crate::format::seal::{Keys, NAME_BYTES, Region, TAG_BYTES};
use crate::format::slot::{SealBroken, Sealer};

/// Seals with a repository's log key.
#[derive(Clone, Debug)]
pub struct LogSealer(Keys);

impl LogSealer {
    /// With the log key among `keys`.
    pub fn new(keys: &Keys) -> LogSealer {
        LogSealer(keys.clone())
    }

    fn name(nonce: [u8; 12]) -> [u8; NAME_BYTES] {
        let mut name = [0; NAME_BYTES];
        name[..12].copy_from_slice(&nonce);
        name
    }
}

impl Sealer for LogSealer {
    fn seal(&self, aad: &[u8], nonce: [u8; 12], body: &mut Vec<u8>) {
        let tag = self.0.log(&Self::name(nonce)).seal(Region::Record, 0, aad, body);
        body.extend_from_slice(&tag);
    }

    fn open(&self, aad: &[u8], nonce: [u8; 12], body: &mut Vec<u8>) -> Result<(), SealBroken> {
        let at = body.len().checked_sub(TAG_BYTES).ok_or(SealBroken)?;
        let tag: [u8; TAG_BYTES] = body[at..].try_into().map_err(|_| SealBroken)?;
        body.truncate(at);
        self.0.log(&Self::name(nonce)).open(Region::Record, 0, aad, body, &tag).map_err(|_| SealBroken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::seal::{Sealing, Secret};

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        for sealing in [Sealing::Off, Sealing::Aes256Gcm] {
            let sealer = LogSealer::new(&Keys::new(&Secret::new([7; 32]), sealing));
            let mut body = b"records".to_vec();
            sealer.seal(b"header", [1; 12], &mut body);
            let sealed = body.clone();
            assert_eq!(sealer.open(b"header", [1; 12], &mut body), Ok(()));
            assert_eq!(body, b"records");
            for (aad, nonce) in [(b"headex", [1; 12]), (b"header", [2; 12])] {
                assert!(sealer.open(aad, nonce, &mut sealed.clone()).is_err());
            }
            assert!(sealer.open(b"header", [1; 12], &mut vec![0; TAG_BYTES - 1]).is_err());
        }
    }
}
