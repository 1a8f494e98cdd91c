//! A byte buffer that starts on a 4096-byte boundary, as `O_DIRECT` wants it. No I/O here.

/// Alignment in bytes: enough for sectors of 512 and of 4096 bytes.
pub const ALIGNMENT: usize = 4096;

/// The buffer. It is a little larger inside, so that no unsafe code is needed to align it.
#[derive(Debug)]
pub struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let bytes = vec![0; len + ALIGNMENT];
        // The Vec is never grown, so its bytes stay where they are. `align_offset` gives a number below
        // ALIGNMENT for bytes; the remainder keeps the slice in bounds whatever it gives.
        let start = bytes.as_ptr().align_offset(ALIGNMENT) % ALIGNMENT;
        Self { bytes, start, len }
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeroed(bytes.len());
        buffer.as_mut().copy_from_slice(bytes);
        buffer
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl AsMut<[u8]> for AlignedBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_on_a_boundary_and_holds_what_it_was_given() {
        for len in [0, 1, 512, 4096, 65_536] {
            let buffer = AlignedBuffer::copy_of(&vec![7; len]);
            assert_eq!(buffer.as_ref().len(), len);
            assert_eq!(buffer.as_ref().as_ptr().addr() % ALIGNMENT, 0);
            assert!(buffer.as_ref().iter().all(|byte| *byte == 7));
        }
    }
}
