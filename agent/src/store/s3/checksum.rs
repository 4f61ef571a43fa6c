//! The CRC-32 that S3 checks. Source: AWS "Checking object integrity".

/// CRC-32 (IEEE 802.3) of the parts, big-endian, in base64: the value of `x-amz-checksum-crc32`.
pub fn crc32_base64(parts: &[&[u8]]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    // 32 bits are five digits of 6 bits, a sixth with the last 2 bits, and two signs of padding.
    let bits = u64::from(hasher.finalize()) << 4;
    let digit = |n: u32| char::from(DIGITS[(bits >> (30 - 6 * n)) as usize & 63]);
    (0..6).map(digit).chain(['=', '=']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_as_aws_writes_it() {
        // The check value of CRC-32 is cbf43926.
        assert_eq!(crc32_base64(&[b"1234", b"56789"]), "y/Q5Jg==");
        assert_eq!(crc32_base64(&[]), "AAAAAA==");
    }
}
