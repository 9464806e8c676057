//! Memory that direct I/O can write to.

/// The alignment of every buffer: a page, which is at least what any disk's logical blocks and DMA
/// need.
const ALIGNMENT_BYTES: usize = 4096;

/// Memory that starts at a page and stays where it is, also when this value is moved.
#[derive(Debug)]
pub(super) struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    length_bytes: usize,
}

impl AlignedBuffer {
    /// Allocates `length_bytes`, and touches them, so that no read meets a page fault.
    pub(super) fn new(length_bytes: usize) -> AlignedBuffer {
        let mut memory = vec![0; length_bytes + ALIGNMENT_BYTES];
        // Zeroes alone would be the kernel's, mapped at the first write.
        memory.fill(0xff);
        let start = memory.as_ptr().align_offset(ALIGNMENT_BYTES);
        AlignedBuffer { memory, start, length_bytes }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.length_bytes]
    }

    /// The address of the byte at `position`, for a kernel that writes there later. No reference to
    /// the bytes is made: the kernel may be writing to other parts of them now.
    ///
    /// # Panics
    ///
    /// If there is no byte at `position`.
    pub(super) fn address_of(&mut self, position: usize) -> *mut u8 {
        assert!(position < self.length_bytes, "{position} of {}", self.length_bytes);
        self.memory.as_mut_ptr().wrapping_add(self.start + position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_starts_at_a_page_and_has_its_length() {
        for length_bytes in [512, 4096, 4608, 1 << 20] {
            let mut buffer = AlignedBuffer::new(length_bytes);
            let slice = buffer.as_mut_slice();
            assert_eq!(slice.len(), length_bytes);
            assert_eq!(slice.as_ptr().addr() % ALIGNMENT_BYTES, 0);
            let last = slice.as_ptr().wrapping_add(length_bytes - 1).addr();
            assert_eq!(buffer.address_of(length_bytes - 1).addr(), last);
        }
    }
}
