//! Control groups: the columns of their numbers and paths.

use super::column::{
    CodecError, ColumnReader, Columnar, StreamKind, narrow, put_deltas, put_varints,
};

/// Bytes of a path at most, which is the kernel's own limit (`PATH_MAX`).
pub const GROUP_PATH_BYTES_MAX: usize = 4096;

/// One item of `groups.vsr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupItem {
    /// The number by which events refer to it.
    pub number: u64,
    /// Its path below the root of the hierarchy, which is `/`; `None` if it was gone before it was named.
    /// At most [`GROUP_PATH_BYTES_MAX`] bytes; a longer one is not stored.
    pub path: Option<String>,
}

impl GroupItem {
    fn stored(&self) -> Option<&str> {
        self.path.as_deref().filter(|path| path.len() <= GROUP_PATH_BYTES_MAX)
    }
}

impl Columnar for GroupItem {
    const KIND: StreamKind = StreamKind::Groups;

    fn encode(items: &[Self], payload: &mut Vec<u8>) {
        put_deltas(items.iter().map(|group| group.number), payload);
        let length = |group: &GroupItem| group.stored().map_or(0, |path| path.len() as u64 + 1);
        put_varints(items.iter().map(length), payload);
        payload.extend(items.iter().filter_map(GroupItem::stored).flat_map(str::bytes));
    }

    fn decode(count: usize, columns: &mut ColumnReader<'_>) -> Result<Vec<Self>, CodecError> {
        let numbers = columns.deltas::<u64>(count)?;
        let lengths = columns.varints::<u64>(count)?;
        let group = |(number, length): (u64, u64)| {
            let Some(length) = length.checked_sub(1) else {
                return Ok(GroupItem { number, path: None });
            };
            if length > GROUP_PATH_BYTES_MAX as u64 {
                return Err(CodecError::OutOfRange(length));
            }
            let bytes = columns.bytes(narrow(length)?)?;
            let path = str::from_utf8(bytes).map_err(|_| CodecError::NotText)?;
            Ok(GroupItem { number, path: Some(path.to_owned()) })
        };
        numbers.into_iter().zip(lengths).map(group).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item(number: u64, path: Option<&str>) -> GroupItem {
        GroupItem { number, path: path.map(str::to_owned) }
    }

    #[test]
    fn two_groups_have_these_bytes() {
        let mut payload = Vec::new();
        GroupItem::encode(&[item(5, Some("/a")), item(3, None)], &mut payload);
        assert_eq!(payload, [10, 3, 3, 0, b'/', b'a']);
    }

    #[test]
    fn a_path_without_end_is_an_error_and_none_is_written() {
        let mut columns = ColumnReader::new(&[0, 0x82, 0x20]);
        assert_eq!(GroupItem::decode(1, &mut columns), Err(CodecError::OutOfRange(4097)));
        let mut payload = Vec::new();
        GroupItem::encode(&[item(0, Some(&"x".repeat(4097)))], &mut payload);
        assert_eq!(payload, [0, 0]);
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(
            groups in prop::collection::vec((any::<u64>(), prop::option::of("/[a-z/\u{e9}]{0,20}")), 0..20),
        ) {
            let groups: Vec<GroupItem> =
                groups.into_iter().map(|(number, path)| GroupItem { number, path }).collect();
            let mut payload = Vec::new();
            GroupItem::encode(&groups, &mut payload);
            let mut columns = ColumnReader::new(&payload);
            prop_assert_eq!(GroupItem::decode(groups.len(), &mut columns).unwrap(), groups);
            prop_assert_eq!(columns.finish(), Ok(()));
        }
    }
}
