//! A stream on disk: the file header and the blocks, see the layout in the module above.

use super::column::{CodecError, ColumnReader, Columnar, StreamKind};
use super::pack::{pack, unpack};
use super::{
    BLOCK_BYTES_MAX, BLOCK_ITEMS_MAX, FORMAT_VERSION, FORMAT_VERSION_MIN, FORMAT_VERSION_PACKED,
    StoreError,
};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MAGIC: [u8; 8] = *b"\x89VSR\r\n\x1a\n";
const FILE_HEADER_BYTES: usize = 16;
const BLOCK_HEADER_BYTES: usize = 12;

/// A block is written at the latest when its first item is this old, so that a crash costs little.
const BLOCK_AGE_MAX: Duration = Duration::from_secs(1);

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Its writer finished it: everything that was recorded is here.
    Finished,
    /// It was cut off. What comes before the cut is whole; what came after is unknown.
    Torn {
        /// Bytes after the last whole block: half a block, or a corrupt one and all that follows.
        /// 0 when the writer ended between two blocks, or is still at work.
        bytes: u64,
    },
}

fn file_header(kind: StreamKind) -> [u8; FILE_HEADER_BYTES] {
    file_header_of(kind, FORMAT_VERSION)
}

fn file_header_of(kind: StreamKind, version: u16) -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&version.to_le_bytes());
    header[10..12].copy_from_slice(&(kind as u16).to_le_bytes());
    let crc = crc32fast::hash(&header[..12]);
    header[12..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// One block as bytes; no items make the block that ends a stream.
fn block_bytes<T: Columnar>(items: &[T]) -> io::Result<Vec<u8>> {
    let mut payload = Vec::new();
    let mut bytes = vec![0; BLOCK_HEADER_BYTES];
    if !items.is_empty() {
        T::encode(items, &mut payload);
        pack(&payload, T::PARTS, &mut bytes)?;
    }
    let payload_bytes = bytes.len() - BLOCK_HEADER_BYTES;
    assert!(items.len() <= BLOCK_ITEMS_MAX && payload.len().max(payload_bytes) <= BLOCK_BYTES_MAX);
    let short = |length: usize| u32::try_from(length).expect("the limits above are below 2^32");
    bytes[..4].copy_from_slice(&short(payload_bytes).to_le_bytes());
    bytes[4..8].copy_from_slice(&short(items.len()).to_le_bytes());
    let crc = block_crc(&bytes[..8], &bytes[BLOCK_HEADER_BYTES..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

fn block_crc(lengths: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(lengths);
    hasher.update(payload);
    hasher.finalize()
}

/// Writes one stream. Items are buffered into blocks; what was flushed survives the process.
///
/// Dropped without [`StreamWriter::finish`], it still tries to write what it holds, but the stream
/// then reads as [`Tail::Torn`].
#[derive(Debug)]
pub struct StreamWriter<T: Columnar, W: Write = File> {
    path: PathBuf,
    out: W,
    items: Vec<T>,
    /// When the first of `items` came in.
    oldest: Option<Instant>,
    written_bytes: u64,
    state: WriterState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriterState {
    Open,
    Finished,
    /// A write failed. Nothing may follow it: the file may end with half a block.
    Failed,
}

impl<T: Columnar> StreamWriter<T, File> {
    /// Creates the file, which must not exist, and writes its header.
    ///
    /// # Errors
    /// [`StoreError::Io`] with the path.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|source| StoreError::Io { doing: "create", path: path.into(), source })?;
        StreamWriter::new(file, path)
    }
}

impl<T: Columnar, W: Write> StreamWriter<T, W> {
    /// Writes the header to `out`; `path` is what errors name.
    ///
    /// # Errors
    /// [`StoreError::Io`] with the path.
    pub fn new(mut out: W, path: &Path) -> Result<Self, StoreError> {
        let header = file_header(T::KIND);
        out.write_all(&header).map_err(|source| write_error(path, source))?;
        let written_bytes = header.len() as u64;
        let (path, items) = (path.into(), Vec::with_capacity(BLOCK_ITEMS_MAX));
        let state = WriterState::Open;
        Ok(StreamWriter { path, out, items, oldest: None, written_bytes, state })
    }

    /// Adds one item; writes a block when it is full.
    ///
    /// # Errors
    /// When the block cannot be written, for example because the disk is full. What was written
    /// before stays readable; later calls fail with [`StoreError::WriteFailedBefore`].
    pub fn push(&mut self, item: T) -> Result<(), StoreError> {
        if self.state == WriterState::Failed {
            return Err(StoreError::WriteFailedBefore(self.path.clone()));
        }
        self.oldest.get_or_insert_with(Instant::now);
        self.items.push(item);
        if self.items.len() >= BLOCK_ITEMS_MAX { self.flush() } else { Ok(()) }
    }

    /// Writes items that have waited for a second; to be called now and then while nothing is pushed.
    ///
    /// # Errors
    /// As [`StreamWriter::push`].
    pub fn tick(&mut self) -> Result<(), StoreError> {
        match self.oldest {
            Some(oldest) if oldest.elapsed() >= BLOCK_AGE_MAX => self.flush(),
            _ => Ok(()),
        }
    }

    /// What was written so far. A block that is not full yet is not in it.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Writes what is buffered as a block, if there is anything.
    ///
    /// # Errors
    /// As [`StreamWriter::push`].
    pub fn flush(&mut self) -> Result<(), StoreError> {
        if self.items.is_empty() {
            return Ok(());
        }
        T::arrange(&mut self.items);
        let bytes = self.packed(&self.items)?;
        self.items.clear();
        self.oldest = None;
        self.write(&bytes)
    }

    /// Writes what is left and the end of the stream.
    ///
    /// # Errors
    /// As [`StreamWriter::push`].
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.flush()?;
        self.write(&self.packed(&[])?)?;
        self.state = WriterState::Finished;
        Ok(())
    }

    fn packed(&self, items: &[T]) -> Result<Vec<u8>, StoreError> {
        let refused = |source| StoreError::Io { doing: "pack", path: self.path.clone(), source };
        block_bytes(items).map_err(refused)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.state == WriterState::Failed {
            return Err(StoreError::WriteFailedBefore(self.path.clone()));
        }
        self.out.write_all(bytes).map_err(|source| {
            self.state = WriterState::Failed;
            write_error(&self.path, source)
        })?;
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }
}

impl<T: Columnar, W: Write> Drop for StreamWriter<T, W> {
    fn drop(&mut self) {
        if self.state == WriterState::Open {
            // An error can be told to nobody here; the missing end block tells the reader.
            let _ = self.flush();
        }
    }
}

fn write_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { doing: "write", path: path.into(), source }
}

/// Reads one stream block by block, with one block in memory.
#[derive(Debug)]
pub struct StreamReader<T: Columnar, R: Read = BufReader<File>> {
    path: PathBuf,
    source: R,
    version: u16,
    tail: Option<Tail>,
    /// Reused from block to block.
    payload: Vec<u8>,
    items: PhantomData<T>,
}

impl<T: Columnar> StreamReader<T> {
    /// Opens a stream and checks its header.
    ///
    /// # Errors
    /// When it cannot be read, or is not a stream of this kind that this version knows.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(|source| StoreError::Io {
            doing: "open",
            path: path.into(),
            source,
        })?;
        #[cfg(feature = "decoded")]
        crate::decoded::opened(path);
        StreamReader::new(BufReader::new(file), path)
    }
}

impl<T: Columnar, R: Read> StreamReader<T, R> {
    /// Reads from `source`; `path` is what errors name.
    ///
    /// # Errors
    /// As [`StreamReader::open`].
    pub fn new(source: R, path: &Path) -> Result<Self, StoreError> {
        let (path, payload, items) = (path.into(), Vec::new(), PhantomData);
        let version = FORMAT_VERSION;
        let mut reader = StreamReader { path, source, version, tail: None, payload, items };
        reader.read_file_header()?;
        Ok(reader)
    }

    /// The items of the next whole block, or `None` where [`StreamReader::tail`] says how it ends.
    ///
    /// # Errors
    /// [`StoreError::Io`] only: torn and corrupt bytes are a [`Tail`], not an error.
    pub fn next_block(&mut self) -> Result<Option<Vec<T>>, StoreError> {
        if self.tail.is_some() {
            return Ok(None);
        }
        let mut header = [0; BLOCK_HEADER_BYTES];
        let header_bytes = self.fill(&mut header)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3, crc @ ..] = header;
        let payload_bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let count = u32::from_le_bytes([c0, c1, c2, c3]) as usize;
        let plausible = header_bytes == BLOCK_HEADER_BYTES
            && payload_bytes <= BLOCK_BYTES_MAX
            && count <= BLOCK_ITEMS_MAX;
        if !plausible {
            return self.end_torn(header_bytes);
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        payload.resize(payload_bytes, 0);
        let got_bytes = self.fill(&mut payload)?;
        let whole = got_bytes == payload_bytes
            && block_crc(&header[..8], &payload) == u32::from_le_bytes(crc);
        let items = if whole { decode(self.version, count, &payload).ok() } else { None };
        self.payload = payload;
        match items {
            None => self.end_torn(header_bytes + got_bytes),
            Some(items) if items.is_empty() => self.end_finished(),
            Some(items) => {
                #[cfg(feature = "decoded")]
                crate::decoded::items(&self.path, items.len());
                Ok(Some(items))
            }
        }
    }

    /// How the stream ends; `None` until [`StreamReader::next_block`] has returned `None`.
    #[must_use]
    pub fn tail(&self) -> Option<Tail> {
        self.tail
    }

    /// The file that is read.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read_file_header(&mut self) -> Result<(), StoreError> {
        let mut header = [0; FILE_HEADER_BYTES];
        let got = self.fill(&mut header)?;
        let mut known = FORMAT_VERSION_MIN..=FORMAT_VERSION;
        let is_of = |version: &u16| header[..got] == file_header_of(T::KIND, *version)[..got];
        if let Some(version) = known.find(is_of) {
            self.version = version;
            if got == FILE_HEADER_BYTES {
                return Ok(());
            }
            // Its writer died before the first block: a torn stream without items.
            self.end_torn(got)?;
            return Ok(());
        }
        let [m0, m1, m2, m3, m4, m5, m6, m7, v0, v1, k0, k1, crc @ ..] = header;
        let intact = u32::from_le_bytes(crc) == crc32fast::hash(&header[..12]);
        let version = u16::from_le_bytes([v0, v1]);
        if [m0, m1, m2, m3, m4, m5, m6, m7] != MAGIC || !intact || version == 0 {
            return Err(StoreError::NotAStream(self.path.clone()));
        }
        if version > FORMAT_VERSION {
            return Err(StoreError::NewerFormat { path: self.path.clone(), found: version });
        }
        if version < FORMAT_VERSION_MIN {
            return Err(StoreError::OlderFormat { path: self.path.clone(), found: version });
        }
        let found = u16::from_le_bytes([k0, k1]);
        Err(StoreError::WrongKind { path: self.path.clone(), found, expected: T::KIND })
    }

    /// Reads until `buffer` is full or the source ends; returns how much was read.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, StoreError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.read_error(source)),
            }
        }
        Ok(filled)
    }

    fn rest_bytes(&mut self) -> Result<u64, StoreError> {
        io::copy(&mut self.source, &mut io::sink()).map_err(|source| self.read_error(source))
    }

    fn end_torn(&mut self, unused_bytes: usize) -> Result<Option<Vec<T>>, StoreError> {
        let bytes = unused_bytes as u64 + self.rest_bytes()?;
        self.tail = Some(Tail::Torn { bytes });
        Ok(None)
    }

    fn end_finished(&mut self) -> Result<Option<Vec<T>>, StoreError> {
        let bytes = self.rest_bytes()?;
        self.tail = Some(if bytes == 0 { Tail::Finished } else { Tail::Torn { bytes } });
        Ok(None)
    }

    fn read_error(&self, source: io::Error) -> StoreError {
        StoreError::Io { doing: "read", path: self.path.clone(), source }
    }
}

fn decode<T: Columnar>(version: u16, count: usize, bytes: &[u8]) -> Result<Vec<T>, CodecError> {
    if count == 0 {
        return ColumnReader::new(bytes).finish().map(|()| Vec::new());
    }
    if version < FORMAT_VERSION_PACKED {
        let mut columns = ColumnReader::new(bytes);
        let items = T::decode_earlier(count, &mut columns)?;
        return columns.finish().map(|()| items);
    }
    let payload = unpack(bytes)?;
    let mut columns = ColumnReader::new(&payload);
    let items = T::decode(count, &mut columns)?;
    columns.finish().map(|()| items)
}

/// All items of a stream that is known to be small enough for memory, and how it ends.
///
/// # Errors
/// As [`StreamReader::open`] and [`StreamReader::next_block`].
pub fn read_all<T: Columnar>(path: &Path) -> Result<(Vec<T>, Tail), StoreError> {
    let mut reader = StreamReader::open(path)?;
    let mut all = Vec::new();
    while let Some(mut items) = reader.next_block()? {
        all.append(&mut items);
    }
    Ok((all, reader.tail().expect("the last block was asked for just now")))
}

#[cfg(test)]
mod tests;
