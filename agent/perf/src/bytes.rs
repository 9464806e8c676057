//! Numbers at places in bytes that the kernel wrote.
#![expect(clippy::host_endian_bytes, reason = "the kernel writes in the machine's own order")]

/// The u16 at `offset`, in the machine's byte order.
#[must_use]
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The u32 at `offset`, in the machine's byte order.
#[must_use]
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The u64 at `offset`, in the machine's byte order.
#[must_use]
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}
