//! Messages as protobuf writes them (protobuf.dev, "Encoding"): fields of a number and a value, in any order.

/// A message that is being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

/// How the value of a field is written.
#[derive(Debug, Clone, Copy)]
enum WireType {
    Varint = 0,
    Fixed64 = 1,
    LengthDelimited = 2,
}

impl Message {
    /// What was written.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Fields that were written elsewhere.
    pub(super) fn append(&mut self, other: &Message) {
        self.0.extend_from_slice(&other.0);
    }

    /// A `uint32`, `uint64`, `bool` or `enum`.
    pub(super) fn uint(&mut self, field: u32, value: u64) {
        self.tag(field, WireType::Varint);
        self.varint(value);
    }

    /// An `int32` or `int64`.
    pub(super) fn int(&mut self, field: u32, value: i64) {
        self.uint(field, value.cast_unsigned());
    }

    /// A `fixed64`.
    pub(super) fn fixed(&mut self, field: u32, value: u64) {
        self.tag(field, WireType::Fixed64);
        self.0.extend(value.to_le_bytes());
    }

    /// A `string` or `bytes`.
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.tag(field, WireType::LengthDelimited);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(super) fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// A message within this one.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Message)) {
        self.tag(field, WireType::LengthDelimited);
        self.delimited(write);
    }

    /// A `repeated` field of numbers, packed; nothing if there are none.
    pub(super) fn packed(&mut self, field: u32, values: &[u64]) {
        if !values.is_empty() {
            self.message(field, |packed| values.iter().for_each(|value| packed.varint(*value)));
        }
    }

    /// The length of what is written, and then that.
    fn delimited(&mut self, write: impl FnOnce(&mut Message)) {
        let start = self.0.len();
        write(self);
        let end = self.0.len();
        // The length is known only now, and takes as many bytes as it takes.
        self.varint((end - start) as u64);
        let length_bytes = self.0.len() - end;
        self.0[start..].rotate_right(length_bytes);
    }

    fn tag(&mut self, field: u32, wire_type: WireType) {
        self.varint(u64::from(field) << 3 | wire_type as u64);
    }

    /// Seven bits a byte, the lowest first; the eighth says that more follow.
    fn varint(&mut self, mut value: u64) {
        loop {
            let [low, ..] = (value & 0x7f).to_le_bytes();
            value >>= 7;
            if value == 0 {
                self.0.push(low);
                return;
            }
            self.0.push(low | 0x80);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::{Field, fields};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_are_those_of_the_protobuf_documentation() {
        let mut message = Message::default();
        message.uint(1, 150);
        assert_eq!(message.as_bytes(), [0x08, 0x96, 0x01]);
        message.clear();
        message.text(2, "testing");
        assert_eq!(message.as_bytes(), [0x12, 7, b't', b'e', b's', b't', b'i', b'n', b'g']);
        message.clear();
        message.message(3, |inner| inner.uint(1, 150));
        assert_eq!(message.as_bytes(), [0x1a, 3, 0x08, 0x96, 0x01]);
        message.clear();
        message.packed(6, &[3, 270, 86_942]);
        assert_eq!(message.as_bytes(), [0x32, 6, 3, 0x8e, 2, 0x9e, 0xa7, 5]);
        message.clear();
        message.int(1, -2);
        assert_eq!(
            message.as_bytes(),
            [0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]
        );
        message.clear();
        message.packed(6, &[]);
        assert!(message.is_empty());
    }

    proptest! {
        /// Of whatever length a message within a message is, what was written is read again.
        #[test]
        fn reading_undoes_writing(
            field in 1_u32..1 << 20,
            value in any::<u64>(),
            bytes in prop::collection::vec(any::<u8>(), 0..40_000),
        ) {
            let mut message = Message::default();
            message.message(field, |inner| {
                inner.uint(field, value);
                inner.message(1, |innermost| innermost.bytes(field, &bytes));
                inner.fixed(2, value);
            });
            let outer = fields(message.as_bytes());
            let [(of, Field::Bytes(inner))] = outer.as_slice() else { panic!("{outer:?}") };
            prop_assert_eq!(*of, field);
            let inner = fields(inner);
            let [number, (1, Field::Bytes(innermost)), fixed] = inner.as_slice() else {
                panic!("{inner:?}")
            };
            prop_assert_eq!(number, &(field, Field::Number(value)));
            prop_assert_eq!(fixed, &(2, Field::Number(value)));
            prop_assert_eq!(fields(innermost), vec![(field, Field::Bytes(bytes.as_slice()))]);
        }
    }
}
