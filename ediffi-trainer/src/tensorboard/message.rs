//! A message of protobuf, as far as events need one.

/// A message under construction. Fields may stand in any order.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

/// How a value is written.
const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const LENGTH: u64 = 2;
const FOUR_BYTES: u64 = 5;

impl Message {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn integer(self, field: u64, value: u64) -> Self {
        self.varint(field << 3 | VARINT).varint(value)
    }

    pub(super) fn double(self, field: u64, value: f64) -> Self {
        self.varint(field << 3 | EIGHT_BYTES).raw(&value.to_le_bytes())
    }

    pub(super) fn float(self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | FOUR_BYTES).raw(&value.to_le_bytes())
    }

    pub(super) fn bytes(self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | LENGTH).varint(value.len() as u64).raw(value)
    }

    pub(super) fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    pub(super) fn message(self, field: u64, value: Self) -> Self {
        self.bytes(field, &value.0)
    }

    /// Seven bits a byte, the lowest first; the high bit says that more follow.
    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push((value & 0x7F) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of protobuf's description of its encoding: 150 in field 1, "testing" in field 2, the first message in field 3.
    #[test]
    fn messages_are_those_of_protobuf() {
        assert_eq!(Message::new().integer(1, 150).as_bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::new().text(2, "testing").as_bytes(), b"\x12\x07testing");
        assert_eq!(Message::new().message(3, Message::new().integer(1, 150)).as_bytes(), [0x1A, 3, 0x08, 0x96, 0x01]);
    }
}
