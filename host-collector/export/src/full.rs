//! A file on a disk that is full, for tests.

use std::io::{Error, ErrorKind, Result, Write};

/// Takes so many bytes more.
#[derive(Debug)]
pub(crate) struct Full(pub(crate) usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let full = || Error::from(ErrorKind::StorageFull);
        self.0 = self.0.checked_sub(bytes.len()).ok_or_else(full)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
