//! The columns of samples; see the table in the module above.

use super::column::{
    CodecError, ColumnReader, Columnar, StreamKind, put_deltas, put_runs, put_varint, put_varints,
};
use std::sync::Arc;
use vslice_core::samples::{Call, Look, SampleItem, Schedstat};
use vslice_core::units::{HostNs, Tid};

const LOOK: u64 = 0;
const SCHEDSTAT: u64 = 1;
const GAP: u64 = 2;

/// Calls as numbers; those from 3 on are system calls, less 3.
const HIDDEN: u64 = 0;
const RUNNING: u64 = 1;
const NONE: u64 = 2;
const CALLS: u64 = 3;

/// Longer than any function's name (linux: `KSYM_NAME_LEN`, 512).
const NAME_BYTES_MAX: usize = 512;

impl Columnar for SampleItem {
    const KIND: StreamKind = StreamKind::Samples;

    fn encode(items: &[Self], payload: &mut Vec<u8>) {
        put_runs(items.iter().map(kind), payload);
        put_deltas(items.iter().map(|item| item.time().0), payload);
        encode_looks(items, payload);
        let schedstats = || items.iter().filter_map(as_schedstat);
        put_deltas(schedstats().map(|read| read.tid.0.into()), payload);
        put_deltas(schedstats().map(|read| read.on_pcpu_ns), payload);
        put_deltas(schedstats().map(|read| read.run_delay_ns), payload);
        put_deltas(schedstats().map(|read| read.timeslices_count), payload);
        let gaps = || items.iter().filter_map(as_gap);
        put_varints(gaps().map(|(time, until, _)| until.0.wrapping_sub(time.0)), payload);
        put_varints(gaps().map(|(_, _, rounds_count)| rounds_count), payload);
    }

    fn decode(count: usize, columns: &mut ColumnReader<'_>) -> Result<Vec<Self>, CodecError> {
        let kinds = columns.runs::<u64>(count)?;
        let times = columns.deltas::<u64>(count)?;
        let times_of = |wanted: u64| {
            let of_kind = kinds.iter().zip(&times).filter(move |(kind, _)| **kind == wanted);
            of_kind.map(|(_, time)| HostNs(*time)).collect::<Vec<_>>()
        };
        let mut looks = decode_looks(times_of(LOOK), columns)?.into_iter();
        let mut schedstats = decode_schedstats(times_of(SCHEDSTAT), columns)?.into_iter();
        let mut gaps = decode_gaps(times_of(GAP), columns)?.into_iter();
        let next = |kind: &u64| {
            let item = match *kind {
                LOOK => looks.next(),
                SCHEDSTAT => schedstats.next(),
                GAP => gaps.next(),
                other => return Err(CodecError::OutOfRange(other)),
            };
            item.ok_or(CodecError::Short)
        };
        kinds.iter().map(next).collect()
    }
}

fn kind(item: &SampleItem) -> u64 {
    match item {
        SampleItem::Look(_) => LOOK,
        SampleItem::Schedstat(_) => SCHEDSTAT,
        SampleItem::Gap { .. } => GAP,
    }
}

fn as_look(item: &SampleItem) -> Option<&Look> {
    if let SampleItem::Look(look) = item { Some(look) } else { None }
}

fn as_schedstat(item: &SampleItem) -> Option<&Schedstat> {
    if let SampleItem::Schedstat(schedstat) = item { Some(schedstat) } else { None }
}

fn as_gap(item: &SampleItem) -> Option<(HostNs, HostNs, u64)> {
    match item {
        SampleItem::Gap { time, until, rounds_count } => Some((*time, *until, *rounds_count)),
        _ => None,
    }
}

fn encode_looks(items: &[SampleItem], payload: &mut Vec<u8>) {
    let looks = || items.iter().filter_map(as_look);
    put_deltas(looks().map(|look| look.tid.0.into()), payload);
    payload.extend(looks().map(|look| look.state.unwrap_or(0)));
    put_varints(
        looks().map(|look| match look.call {
            Call::Hidden => HIDDEN,
            Call::Running => RUNNING,
            Call::None => NONE,
            Call::In { number, .. } => CALLS + u64::from(number),
        }),
        payload,
    );
    let args = || {
        looks().filter_map(|look| match look.call {
            Call::In { args, .. } => Some(args),
            _ => None,
        })
    };
    for place in 0..3 {
        put_deltas(args().map(|args| args[place]), payload);
    }
    // The names of this block, in the order of their first use.
    let mut names: Vec<&str> = Vec::new();
    let places: Vec<u64> = looks()
        .map(|look| {
            let Some(name) = look.wchan.as_deref().map(short_name) else { return 0 };
            let known = names.iter().position(|known| *known == name);
            let place = known.unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
            place as u64 + 1
        })
        .collect();
    put_varint(names.len() as u64, payload);
    put_varints(names.iter().map(|name| name.len() as u64), payload);
    payload.extend(names.iter().flat_map(|name| name.bytes()));
    put_varints(places.into_iter(), payload);
}

fn short_name(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES_MAX)]
}

fn decode_looks(
    times: Vec<HostNs>,
    columns: &mut ColumnReader<'_>,
) -> Result<Vec<SampleItem>, CodecError> {
    let count = times.len();
    let tids = columns.deltas::<u32>(count)?;
    let states = columns.bytes(count)?;
    let calls = columns.varints::<u64>(count)?;
    let args_count = calls.iter().filter(|call| **call >= CALLS).count();
    let mut args = [(); 3].map(|()| Vec::new());
    for column in &mut args {
        *column = columns.deltas::<u64>(args_count)?;
    }
    let names = decode_names(count, columns)?;
    let places = columns.varints::<usize>(count)?;
    let mut args_at = 0;
    let mut looks = Vec::with_capacity(count);
    for (place, time) in times.into_iter().enumerate() {
        let call = match calls[place] {
            HIDDEN => Call::Hidden,
            RUNNING => Call::Running,
            NONE => Call::None,
            number => {
                let number = number - CALLS;
                let number = u32::try_from(number).map_err(|_| CodecError::OutOfRange(number))?;
                args_at += 1;
                let args = [args[0][args_at - 1], args[1][args_at - 1], args[2][args_at - 1]];
                Call::In { number, args }
            }
        };
        let wchan = match places[place].checked_sub(1) {
            None => None,
            Some(at) => {
                let name = names.get(at).ok_or(CodecError::OutOfRange(at as u64 + 1))?;
                Some(Arc::clone(name))
            }
        };
        let state = Some(states[place]).filter(|state| *state != 0);
        looks.push(SampleItem::Look(Look { time, tid: Tid(tids[place]), call, state, wchan }));
    }
    Ok(looks)
}

fn decode_names(
    looks_count: usize,
    columns: &mut ColumnReader<'_>,
) -> Result<Vec<Arc<str>>, CodecError> {
    let count: usize = columns.number()?;
    if count > looks_count {
        return Err(CodecError::OutOfRange(count as u64));
    }
    let lengths = columns.varints::<usize>(count)?;
    let name = |length: usize| {
        if length > NAME_BYTES_MAX {
            return Err(CodecError::OutOfRange(length as u64));
        }
        let name = str::from_utf8(columns.bytes(length)?).map_err(|_| CodecError::NotText)?;
        Ok(name.into())
    };
    lengths.into_iter().map(name).collect()
}

fn decode_schedstats(
    times: Vec<HostNs>,
    columns: &mut ColumnReader<'_>,
) -> Result<Vec<SampleItem>, CodecError> {
    let count = times.len();
    let tids = columns.deltas::<u32>(count)?;
    let on_pcpu_ns = columns.deltas::<u64>(count)?;
    let run_delay_ns = columns.deltas::<u64>(count)?;
    let timeslices_count = columns.deltas::<u64>(count)?;
    let read = |(place, time)| {
        SampleItem::Schedstat(Schedstat {
            time,
            tid: Tid(tids[place]),
            on_pcpu_ns: on_pcpu_ns[place],
            run_delay_ns: run_delay_ns[place],
            timeslices_count: timeslices_count[place],
        })
    };
    Ok(times.into_iter().enumerate().map(read).collect())
}

fn decode_gaps(
    times: Vec<HostNs>,
    columns: &mut ColumnReader<'_>,
) -> Result<Vec<SampleItem>, CodecError> {
    let lengths_ns = columns.varints::<u64>(times.len())?;
    let rounds = columns.varints::<u64>(times.len())?;
    let gap = |((time, length_ns), rounds_count): ((HostNs, u64), u64)| SampleItem::Gap {
        time,
        until: HostNs(time.0.wrapping_add(length_ns)),
        rounds_count,
    };
    Ok(times.into_iter().zip(lengths_ns).zip(rounds).map(gap).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn look(time: u64, tid: u32, call: Call, wchan: Option<&str>) -> SampleItem {
        let state = (call != Call::Running).then_some(b'S');
        let wchan = wchan.map(Into::into);
        SampleItem::Look(Look { time: HostNs(time), tid: Tid(tid), call, state, wchan })
    }

    #[test]
    fn samples_have_these_bytes() {
        let futex = Call::In { number: 202, args: [8, 0x80, 2] };
        let items = [
            look(10, 7, Call::Running, None),
            look(11, 8, futex, Some("fw")),
            look(12, 8, Call::None, Some("fw")),
            SampleItem::Schedstat(Schedstat {
                time: HostNs(13),
                tid: Tid(7),
                on_pcpu_ns: 5,
                run_delay_ns: 6,
                timeslices_count: 1,
            }),
            SampleItem::Gap { time: HostNs(14), until: HostNs(20), rounds_count: 3 },
        ];
        let mut payload = Vec::new();
        SampleItem::encode(&items, &mut payload);
        let expected: [&[u8]; 13] = [
            &[2, 0, 0, 1, 0, 2],  // three looks, a schedstat, a gap
            &[20, 2, 2, 2, 2],    // times
            &[14, 2, 0],          // threads of the looks
            &[0, b'S', b'S'],     // states
            &[1, 0xcd, 0x01, 2],  // running, 202 + 3, none
            &[16, 0x80, 0x02, 4], // arguments of the one call
            &[1, 2, b'f', b'w'],  // names
            &[0, 1, 1],           // who slept where
            &[14],                // thread of the schedstat
            &[10],                // on a pCPU
            &[12],                // run delay
            &[2],                 // timeslices
            &[6, 3],              // the gap
        ];
        assert_eq!(payload, expected.concat());
    }

    #[test]
    fn nonsense_is_an_error() {
        let decode = |payload: &[u8]| SampleItem::decode(1, &mut ColumnReader::new(payload));
        assert_eq!(decode(&[0, 9, 20, 0]), Err(CodecError::OutOfRange(9)));
        // A name that the block does not have, and more names than looks.
        assert_eq!(decode(&[0, 0, 20, 14, 0, 1, 0, 1]), Err(CodecError::OutOfRange(1)));
        assert_eq!(decode(&[0, 0, 20, 14, 0, 1, 2]), Err(CodecError::OutOfRange(2)));
        assert_eq!(decode(&[0, 0, 20, 14, 0]), Err(CodecError::Short));
    }

    fn items() -> impl Strategy<Value = Vec<SampleItem>> {
        let call = prop_oneof![
            Just(Call::Hidden),
            Just(Call::Running),
            Just(Call::None),
            (any::<u32>(), any::<[u64; 3]>()).prop_map(|(number, args)| Call::In { number, args }),
        ];
        let wchan = prop::option::of("[a-c\u{e9}]{0,3}");
        let state = prop::option::of(1_u8..=255);
        let look = (any::<u64>(), any::<u32>(), call, state, wchan).prop_map(
            |(time, tid, call, state, wchan)| {
                let wchan = wchan.map(|name| name.as_str().into());
                SampleItem::Look(Look { time: HostNs(time), tid: Tid(tid), call, state, wchan })
            },
        );
        let schedstat = (any::<u64>(), any::<u32>(), any::<[u64; 3]>()).prop_map(
            |(time, tid, [on_pcpu_ns, run_delay_ns, timeslices_count])| {
                let (time, tid) = (HostNs(time), Tid(tid));
                SampleItem::Schedstat(Schedstat {
                    time,
                    tid,
                    on_pcpu_ns,
                    run_delay_ns,
                    timeslices_count,
                })
            },
        );
        let gap =
            (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(time, until, rounds_count)| {
                SampleItem::Gap { time: HostNs(time), until: HostNs(until), rounds_count }
            });
        prop::collection::vec(prop_oneof![4 => look, 1 => schedstat, 1 => gap], 0..60)
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(items in items()) {
            let mut payload = Vec::new();
            SampleItem::encode(&items, &mut payload);
            let mut columns = ColumnReader::new(&payload);
            prop_assert_eq!(SampleItem::decode(items.len(), &mut columns).unwrap(), items);
            prop_assert_eq!(columns.finish(), Ok(()));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0_usize..50) {
            let _any_answer = SampleItem::decode(count, &mut ColumnReader::new(&bytes));
        }
    }
}
