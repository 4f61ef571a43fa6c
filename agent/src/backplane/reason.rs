//! Why a connection ended or was refused, and how often.
//!
//! Invariants: every way in which a connection ends has a reason; a reason's number goes over the wire in a goodbye and never
//! changes. Does not: hold details; the log has them. Source: ours.

use std::fmt;

macro_rules! reasons {
    ($($number:literal $name:ident $text:literal),* $(,)?) => {
        /// Why a connection ended. The number is what a goodbye carries.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $text] $name = $number,)*
        }

        impl Reason {
            /// All of them, by number.
            pub const ALL: &[Reason] = &[$(Reason::$name),*];

            /// From the number in a goodbye.
            pub fn from_number(number: u8) -> Option<Reason> {
                match number {
                    $($number => Some(Reason::$name),)*
                    _ => None,
                }
            }

            /// A short name for counters and documents: `HeaderCrc`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Reason::$name => stringify!($name),)*
                }
            }
        }

        impl fmt::Display for Reason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Reason::$name => $text,)*
                })
            }
        }
    };
}

reasons! {
    0 Magic "the peer does not speak this protocol",
    1 HeaderCrc "a frame's header was changed on its way",
    2 Proto "a frame of another protocol version",
    3 Kind "a frame of a kind that this program does not know",
    4 Flags "a frame with flags that this program does not know",
    5 Reserved "a frame whose reserved bytes are not zero",
    6 BodyLen "a frame that is longer than frames may be",
    7 Cluster "the peer works for another repository; check what repository each node is given",
    8 Destination "a frame for another node; check the peers' addresses",
    9 Source "the peer's certificate is not that of the node it says it is; give each node its own certificate",
    10 Sequence "a frame came twice, too early or not at all",
    11 BodyCrc "a frame's body was changed on its way",
    12 Body "a frame's body is not what its kind says",
    13 Order "a frame at a time when it may not come",
    14 Version "the peer and this program have no protocol version in common; update the older one",
    15 Credit "the peer sent more than it was granted",
    16 Flood "the peer asks faster than it takes answers",
    17 HandshakeSlow "the handshake or the hello took too long",
    18 FrameSlow "a frame took too long to come in whole",
    19 Silent "nothing was heard of the peer for too long",
    20 Authority "the peer's certificate is of another CA than this node's; give all nodes certificates of one CA (`windlass pki issue`)",
    21 Expired "the peer's certificate has expired; issue a new one, or set the clock right",
    22 NotYetValid "the peer's certificate is not valid yet; set the clock right",
    23 CertificateName "the certificate of the node at this address is not that of the node that should be there",
    24 CertificateMissing "the peer showed no certificate",
    25 Alert "the peer refused the connection during its handshake; its own log says why",
    26 Tls "the handshake or the encryption failed",
    27 Closed "the peer closed the connection",
    28 Link "the connection broke",
    29 Unreachable "the peer cannot be reached",
    30 Stranger "the peer is not in this node's list of peers",
    31 Replaced "the same node made a newer connection",
    32 Evicted "too many connections waited for their handshake; this one had shown no certificate, and made room",
    33 Goodbye "the peer stops",
    34 Refused "the peer closed the connection and said why",
    35 Stopped "this node stops",
    36 Congested "more messages waited for the peer than may wait; it is slow, or the network is",
    37 Displaced "another machine with this node's number took its place at the peer; give one of the two another number, and a certificate for it",
    38 Namesake "the machine at this address has this node's own number; give one of the two another number, and a certificate for it, or correct the address",
    39 AuthorityThere "the peer refused this node's certificate: it is of another CA than the peer's; give all nodes certificates of one CA (`windlass pki issue`)",
    40 NameThere "the peer refused this node's certificate: it is not that of the node that should be at this address; check numbers and addresses in the board profiles",
    41 ExpiredThere "the peer refused this node's certificate: it has expired by the peer's clock; issue a new one, or set the peer's clock right",
    42 Unlisted "this node is not in the peer's list of peers; put it into the peer's board profile",
}

/// How many connections ended, by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters([u64; Reason::ALL.len()]);

impl Default for Counters {
    fn default() -> Counters {
        Counters([0; Reason::ALL.len()])
    }
}

impl Counters {
    /// Counts one; returns the new count.
    pub fn count(&mut self, reason: Reason) -> u64 {
        let count = &mut self.0[reason as usize];
        *count = count.saturating_add(1);
        *count
    }

    /// The count of a reason.
    pub fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// Reasons that were counted, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.iter().map(|&reason| (reason, self.of(reason))).filter(|&(_, count)| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_in_the_table() {
        for (index, &reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert_eq!(Reason::from_number(index as u8), Some(reason));
        }
        assert_eq!(Reason::from_number(Reason::ALL.len() as u8), None);
        let mut counters = Counters::default();
        assert_eq!((counters.count(Reason::Tls), counters.count(Reason::Tls)), (1, 2));
        assert_eq!(counters.iter().collect::<Vec<_>>(), [(Reason::Tls, 2)]);
    }
}
