//! Base64 (RFC 4648, section 4): how a style picture stands in the JSON of a request.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `bytes` as text, padded with `=`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, i| bits << 8 | u32::from(group.get(i).copied().unwrap_or(0)));
        for i in 0..4_u32 {
            let digit = ALPHABET.get((bits >> (18 - 6 * i) & 63) as usize).copied().unwrap_or(b'=');
            // One byte is two digits, two bytes are three.
            text.push(if i as usize <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// The bytes that `text` stands for, or what is wrong with it. The padding may be missing.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for (group, four) in digits.chunks(4).enumerate() {
        let mut bits = 0;
        for (i, digit) in four.iter().enumerate() {
            let value = ALPHABET.iter().position(|known| known == digit).ok_or_else(|| {
                format!("byte {} of the base64 text, `{}`, is none of its digits", 4 * group + i, digit.escape_ascii())
            })?;
            bits = bits << 6 | value as u32;
        }
        match four.len() {
            4 => bytes.extend_from_slice(&[(bits >> 16) as u8, (bits >> 8) as u8, bits as u8]),
            3 => bytes.extend_from_slice(&[(bits >> 10) as u8, (bits >> 2) as u8]),
            2 => bytes.push((bits >> 4) as u8),
            _ => return Err("the base64 text ends in the middle of a byte".to_owned()),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_rfc() {
        // RFC 4648, section 10.
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in vectors {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(decode("Zm8").unwrap(), b"fo");
    }

    #[test]
    fn every_byte_comes_back() {
        let bytes: Vec<u8> = (0..=255).rev().collect();
        assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
        assert!(encode(&[0xfb, 0xff]).contains('/') && encode(&[0xfb, 0xff]).contains('+'));
    }

    #[test]
    fn what_is_no_base64_is_said() {
        assert!(decode("Zm9v!m8=").unwrap_err().contains("byte 4"));
        assert!(decode("Zm9vZ").unwrap_err().contains("middle"));
        assert!(decode("Zm=v").unwrap_err().contains("byte 2"));
    }
}
