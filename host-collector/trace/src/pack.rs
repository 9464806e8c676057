//! A payload as it is on disk: one zstd frame. Each part of it has blocks of zstd of its own, whose codes are then
//! those of values of one kind.

use super::BLOCK_BYTES_MAX;
use super::column::{CodecError, ColumnReader};
use std::cell::RefCell;
use std::io::{self, Write};
use zstd::bulk::Decompressor;
use zstd::stream::raw::CParameter;
use zstd::stream::write::Encoder;
use zstd::zstd_safe::{CCtx, get_frame_content_size};

/// What the collector pays for is its CPU time: the columns leave little for higher levels to find.
const LEVEL: i32 = 1;

/// A shorter part is not worth a block of its own.
const PART_BYTES_MIN: usize = 256;

thread_local! {
    // What zstd works in is dear to make for each block, and too large to be kept for each stream.
    static PACKER: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
    static UNPACKER: RefCell<Decompressor<'static>> = RefCell::default();
}

/// Appends a payload that begins with the lengths of as many parts.
pub(super) fn pack(payload: &[u8], parts_count: usize, packed: &mut Vec<u8>) -> io::Result<()> {
    PACKER.with_borrow_mut(|packer| {
        let mut encoder = Encoder::with_context(packed, packer);
        encoder.set_parameter(CParameter::CompressionLevel(LEVEL))?;
        put(payload, parts_count, &mut encoder)?;
        encoder.finish().map(drop)
    })
}

fn put(
    payload: &[u8],
    parts_count: usize,
    encoder: &mut Encoder<'_, &mut Vec<u8>>,
) -> io::Result<()> {
    encoder.set_pledged_src_size(Some(payload.len() as u64))?;
    let mut rest = ColumnReader::new(payload);
    let lengths = rest.varints::<usize>(parts_count).map_err(io::Error::other)?;
    let mut rest = rest.rest();
    encoder.write_all(&payload[..payload.len() - rest.len()])?;
    for length in lengths {
        let (part, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        rest = behind;
        encoder.write_all(part)?;
        if length >= PART_BYTES_MIN {
            encoder.flush()?;
        }
    }
    encoder.write_all(rest)
}

/// The payload that was packed.
///
/// # Errors
/// If there is none, or one longer than any that is written; then nothing was allocated for it.
pub(super) fn unpack(packed: &[u8]) -> Result<Vec<u8>, CodecError> {
    let length = get_frame_content_size(packed).ok().flatten().ok_or(CodecError::NotPacked)?;
    let length = usize::try_from(length).ok().filter(|length| *length <= BLOCK_BYTES_MAX);
    let length = length.ok_or(CodecError::NotPacked)?;
    // A frame whose content is not as long as it says is refused.
    let unpacked = UNPACKER.with_borrow_mut(|unpacker| unpacker.decompress(packed, length));
    unpacked.map_err(|_| CodecError::NotPacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        pack(payload, 0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn bytes_do_not_depend_on_what_a_thread_has_packed_before() {
        let payload: Vec<u8> = (0..20_000_u32).map(|at| (at * at / 7).to_le_bytes()[1]).collect();
        let first = packed(&payload);
        for others in [vec![3; 100_000], payload[5_000..].to_vec(), Vec::new()] {
            packed(&others);
            assert_eq!(packed(&payload), first);
        }
        assert_eq!(unpack(&first[..first.len() / 2]), Err(CodecError::NotPacked));
        assert_eq!(unpack(&first).as_ref(), Ok(&payload));
    }
}
