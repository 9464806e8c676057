//! Frames in a byte stream.

use std::marker::PhantomData;

use crate::{DecodeError, EncodeError, FRAME_BYTES_MAX};

/// The length field in bytes.
const LENGTH_BYTES: usize = 4;

/// What can travel one way on a connection: [`GuestFrame`](crate::GuestFrame) or
/// [`HostFrame`](crate::HostFrame).
pub trait Frame: Sized {
    /// Appends this frame's kind and payload.
    ///
    /// # Errors
    /// When the frame holds more than the protocol allows; what was appended then is undefined.
    fn encode_body(&self, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// Reads a frame from its kind and its payload, the whole of it.
    ///
    /// # Errors
    /// When the bytes are not exactly one frame.
    fn decode_body(kind: u8, payload: &[u8]) -> Result<Self, DecodeError>;

    /// Appends this frame with its length before it.
    ///
    /// # Errors
    /// When the frame holds more than the protocol allows; nothing is appended then.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        let encoded = self.encode_body(out).and_then(|()| {
            let length_bytes = out.len() - start - LENGTH_BYTES;
            crate::bytes::bound("bytes", length_bytes, FRAME_BYTES_MAX)?;
            Ok(u32::try_from(length_bytes).expect("FRAME_BYTES_MAX fits 32 bits"))
        });
        match encoded {
            Ok(length) => {
                out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
                Ok(())
            }
            Err(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }
}

/// Finds the frames in a stream of bytes that arrives in pieces of any size. It holds at most one
/// frame, so what a peer can make it hold is bounded by [`FRAME_BYTES_MAX`].
///
/// ```
/// use vslice_wire::{Deframer, Frame, HostFrame};
///
/// let mut stream = Vec::new();
/// HostFrame::Start.encode(&mut stream)?;
/// HostFrame::Stop.encode(&mut stream)?;
/// let mut deframer = Deframer::<HostFrame>::new();
/// let mut frames = Vec::new();
/// for mut piece in stream.chunks(3) {
///     while let Some(frame) = deframer.next_frame(&mut piece)? {
///         frames.push(frame);
///     }
/// }
/// assert_eq!(frames, [HostFrame::Start, HostFrame::Stop]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Deframer<F> {
    /// The beginning of the frame that has not arrived whole: its length field, then its body.
    partial: Vec<u8>,
    /// The error that ended this stream, if one did.
    failed: Option<DecodeError>,
    frame: PhantomData<F>,
}

impl<F: Frame> Deframer<F> {
    /// A stream that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self { partial: Vec::new(), failed: None, frame: PhantomData }
    }

    /// Takes from the front of `input` what the current frame lacks and returns the frame if it is
    /// whole now. `None` means that all of `input` was taken and that more is needed.
    ///
    /// # Errors
    /// When the bytes are not a frame. The same error comes back from then on: there is no way to
    /// know where the next frame begins.
    pub fn next_frame(&mut self, input: &mut &[u8]) -> Result<Option<F>, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.advance(input);
        if let Err(error) = result {
            self.failed = Some(error);
            self.partial = Vec::new();
        }
        result
    }

    /// Bytes that have arrived of a frame that is not whole: above 0 at the end of a stream, the
    /// peer went away in the middle of it.
    #[must_use]
    pub fn partial_bytes(&self) -> usize {
        self.partial.len()
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<F>, DecodeError> {
        self.take(input, LENGTH_BYTES);
        let Some((&length, _)) = self.partial.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length_bytes = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if !(1..=FRAME_BYTES_MAX).contains(&length_bytes) {
            return Err(DecodeError::FrameLength { length_bytes, max_bytes: FRAME_BYTES_MAX });
        }
        let frame_bytes = LENGTH_BYTES + length_bytes;
        self.take(input, frame_bytes);
        if self.partial.len() < frame_bytes {
            return Ok(None);
        }
        let body = &self.partial[LENGTH_BYTES..];
        let (&kind, payload) = body.split_first().expect("a length of 0 was refused above");
        let frame = F::decode_body(kind, payload)?;
        self.partial.clear();
        Ok(Some(frame))
    }

    /// Moves bytes from `input` until `partial` has `wanted_bytes` or `input` has none.
    fn take(&mut self, input: &mut &[u8], wanted_bytes: usize) {
        let missing_bytes = wanted_bytes.saturating_sub(self.partial.len());
        let (taken, rest) = input.split_at(missing_bytes.min(input.len()));
        self.partial.extend_from_slice(taken);
        *input = rest;
    }
}

impl<F: Frame> Default for Deframer<F> {
    fn default() -> Self {
        Self::new()
    }
}
