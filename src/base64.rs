//! Bytes as base64 text in JSON (RFC 4648, section 4).

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// Writes the padding, and reads texts with and without it.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&ENGINE.encode(bytes))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    ENGINE.decode(text.as_ref()).map_err(|error| D::Error::custom(format!("no base64: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stored requests hold: padded text; other programs may leave the padding out.
    #[test]
    fn the_padding_may_be_missing() {
        let json = serde_json::value::Serializer;
        assert_eq!(serialize(b"fo", json).unwrap(), "Zm8=");
        let read = |text: &str| deserialize(serde_json::Value::from(text));
        assert_eq!((read("Zm8=").unwrap(), read("Zm8").unwrap()), (b"fo".to_vec(), b"fo".to_vec()));
        let error = read("Zm9v!m8=").unwrap_err().to_string();
        assert!(error.contains("base64") && error.contains("offset 4"), "{error}");
    }
}
