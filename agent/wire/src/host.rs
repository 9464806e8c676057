//! The bytes of what a collector says.

use crate::bytes::{Cursor, bound, put_u16, put_u64};
use crate::{DecodeError, EncodeError, Frame, HostFrame, PLAN_BYTES_MAX, Ping};

const PLAN: u8 = 0x81;
const PING: u8 = 0x82;
const START: u8 = 0x83;
const STOP: u8 = 0x84;
const BYE: u8 = 0x85;

/// [`HostFrame::Start`], `Stop` and `Bye` are their kind alone: 0x83, 0x84, 0x85.
impl Frame for HostFrame {
    fn encode_body(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Plan(json) => return put_plan(out, json),
            Self::Ping(ping) => put_ping(out, ping),
            Self::Start => out.push(START),
            Self::Stop => out.push(STOP),
            Self::Bye => out.push(BYE),
        }
        Ok(())
    }

    fn decode_body(kind: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(payload);
        let frame = match kind {
            PLAN => Self::Plan(cursor.take_rest("bytes of plan", PLAN_BYTES_MAX)?.to_vec()),
            PING => Self::Ping(take_ping(&mut cursor)?),
            START => Self::Start,
            STOP => Self::Stop,
            BYE => Self::Bye,
            kind => return Err(DecodeError::UnknownKind { kind }),
        };
        cursor.finish()?;
        Ok(frame)
    }
}

/// ```text
/// 0x81 json: the rest of the frame, at most PLAN_BYTES_MAX
/// ```
fn put_plan(out: &mut Vec<u8>, json: &[u8]) -> Result<(), EncodeError> {
    bound("bytes of plan", json.len(), PLAN_BYTES_MAX)?;
    out.push(PLAN);
    out.extend_from_slice(json);
    Ok(())
}

/// ```text
/// 0x82 id:u64 named:u8 (0 | 1) vcpu:u16 (0 when not named)
/// ```
/// A ping takes the same number of bytes whether it names a vCPU or not, so that both kinds travel
/// alike.
fn put_ping(out: &mut Vec<u8>, ping: &Ping) {
    out.push(PING);
    put_u64(out, ping.id);
    out.push(u8::from(ping.vcpu.is_some()));
    put_u16(out, ping.vcpu.unwrap_or(0));
}

fn take_ping(cursor: &mut Cursor<'_>) -> Result<Ping, DecodeError> {
    let id = cursor.u64()?;
    let named = cursor.bool("ping")?;
    let vcpu = cursor.u16()?;
    match (named, vcpu) {
        (true, vcpu) => Ok(Ping { id, vcpu: Some(vcpu) }),
        (false, 0) => Ok(Ping { id, vcpu: None }),
        (false, vcpu) => {
            Err(DecodeError::OutOfRange { what: "vCPU not named", value: u64::from(vcpu) })
        }
    }
}
