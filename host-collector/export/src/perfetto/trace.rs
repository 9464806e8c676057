//! A trace as its parts see it: tracks, what happens on them, and words that are written once.

use super::packets::{Order, Packets};
use super::schema;
use super::wire::Message;
use std::collections::HashMap;
use std::io::Write;
use vslice_core::text::harmless;
use vslice_core::units::HostNs;

/// Letters of a text at most: one of a guest or of a process may have any length.
const LETTERS_MAX: usize = 512;

/// Words of one kind that are written once and referred to; further ones are written each time.
const WORDS_MAX: usize = 1 << 12;

/// The sequence of the packets that are of no track. Each track has a sequence of its own, which comes after it.
const SEQUENCE: u64 = 1;

/// The clock of a track's sequence: its times are what lies between them.
const SEQUENCE_CLOCK: u64 = 64;

/// A track, by its `uuid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Track(u64);

/// An arrow from one event to another, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow(u64);

/// What a track belongs to, or is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// Nothing: it is at the top.
    Top,
    /// Below another track. Perfetto shows what is below a thread's or a process's track beside it.
    Below(Track),
    /// It is a process's own track.
    Process { pid: u32, name: &'a str },
    /// It is a thread's own track.
    Thread { pid: u32, tid: u32, name: &'a str },
}

/// What happens on a track.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slice<'a> {
    pub(super) name: &'a str,
    pub(super) category: &'a str,
    pub(super) notes: &'a [Note<'a>],
    /// The arrow that begins here.
    pub(super) begins: Option<Flow>,
    /// The arrow that ends here. Its beginning has to be before this in the file too.
    pub(super) ends: Option<Flow>,
}

/// An annotation.
#[derive(Debug, Clone)]
pub(super) struct Note<'a> {
    pub(super) name: &'a str,
    pub(super) value: Value<'a>,
}

/// What an annotation says.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Bool(bool),
    Count(u64),
    Number(i64),
    Address(u64),
    /// A text that is rarely said again.
    Text(&'a str),
    /// A text that is said often.
    Word(&'a str),
    /// The same, made for this.
    Name(String),
    Notes(Vec<Note<'a>>),
    List(Vec<Value<'a>>),
}

impl<'a> Note<'a> {
    pub(super) fn new(name: &'a str, value: Value<'a>) -> Note<'a> {
        Note { name, value }
    }
}

/// How an event is of a slice.
#[derive(Debug, Clone, Copy)]
enum EventType {
    Begin = 1,
    End = 2,
    Instant = 3,
}

/// A trace that is being written.
#[derive(Debug)]
pub(super) struct Trace<W> {
    packets: Packets<W>,
    words: Words,
    start: HostNs,
    /// Those of the tracks, by `uuid` less one.
    sequences: Vec<Sequence>,
    flows_count: u64,
}

/// The packets of one track: they have a clock of their own, and words are told to each anew.
#[derive(Debug, Default)]
struct Sequence {
    /// The time of the last packet; `None` before the first.
    last: Option<HostNs>,
    told: Told,
    /// Whether arrows begin here, and nowhere else.
    has_causes: bool,
}

impl<W: Write> Trace<W> {
    /// A trace on the host's clock, `CLOCK_MONOTONIC_RAW`.
    pub(super) fn new(file: W, start: HostNs) -> Trace<W> {
        let mut packets = Packets::new(file);
        packets.push(Order::First, |packet| {
            packet.uint(schema::packet::TRUSTED_PACKET_SEQUENCE_ID, SEQUENCE);
            packet.uint(schema::packet::SEQUENCE_FLAGS, schema::packet::STATE_CLEARED);
            packet.uint(schema::packet::FIRST_PACKET_ON_SEQUENCE, 1);
            packet.message(schema::packet::TRACE_PACKET_DEFAULTS, |defaults| {
                defaults.uint(schema::defaults::TIMESTAMP_CLOCK_ID, schema::clock::MONOTONIC_RAW);
            });
            packet.message(schema::packet::CLOCK_SNAPSHOT, |snapshot| {
                snapshot.message(schema::clock::CLOCKS, |clock| {
                    clock.uint(schema::clock::CLOCK_ID, schema::clock::MONOTONIC_RAW);
                    clock.uint(schema::clock::TIMESTAMP, start.0);
                });
                snapshot.uint(schema::clock::PRIMARY_TRACE_CLOCK, schema::clock::MONOTONIC_RAW);
            });
        });
        let (words, sequences) = (Words::default(), Vec::new());
        Trace { packets, words, start, sequences, flows_count: 0 }
    }

    /// The file, with all of it.
    pub(super) fn finish(self) -> std::io::Result<W> {
        self.packets.finish()
    }

    /// A packet of another kind than track events, at this time if it has one.
    pub(super) fn packet(&mut self, time: Option<HostNs>, write: impl FnOnce(&mut Message)) {
        self.packets.push(Order::First, |packet| {
            if let Some(time) = time {
                packet.uint(schema::packet::TIMESTAMP, time.0);
            }
            head(packet, SEQUENCE);
            write(packet);
        });
    }

    /// A new track. Of those below one, the one with the lowest rank is on top.
    pub(super) fn track(&mut self, place: Place<'_>, name: &str, rank: u64) -> Track {
        self.described_track(place, name, rank, "")
    }

    /// One on which arrows begin: all that do begin on such a one.
    pub(super) fn causes(&mut self, place: Place<'_>, name: &str, rank: u64) -> Track {
        let track = self.track(place, name, rank);
        if let Some(sequence) = self.sequences.last_mut() {
            sequence.has_causes = true;
        }
        track
    }

    /// One with a description, which Perfetto shows when it is asked for help.
    pub(super) fn described_track(
        &mut self,
        place: Place<'_>,
        name: &str,
        rank: u64,
        description: &str,
    ) -> Track {
        self.sequences.push(Sequence::default());
        let track = Track(self.sequences.len() as u64);
        self.packet(None, |packet| {
            packet.message(schema::packet::TRACK_DESCRIPTOR, |descriptor| {
                descriptor.uint(schema::track::UUID, track.0);
                match place {
                    Place::Top => descriptor.text(schema::track::NAME, &shown(name)),
                    Place::Below(Track(parent)) => {
                        descriptor.text(schema::track::NAME, &shown(name));
                        descriptor.uint(schema::track::PARENT_UUID, parent);
                    }
                    Place::Process { pid, name } => {
                        descriptor.message(schema::track::PROCESS, |process| {
                            process.uint(schema::track::PROCESS_PID, pid.into());
                            process.text(schema::track::PROCESS_NAME, &shown(name));
                        });
                    }
                    Place::Thread { pid, tid, name } => {
                        descriptor.message(schema::track::THREAD, |thread| {
                            thread.uint(schema::track::THREAD_PID, pid.into());
                            thread.uint(schema::track::THREAD_TID, tid.into());
                            thread.text(schema::track::THREAD_NAME, &shown(name));
                        });
                    }
                }
                descriptor.uint(schema::track::CHILD_ORDERING, schema::track::EXPLICIT);
                descriptor.uint(schema::track::SIBLING_ORDER_RANK, rank);
                if !description.is_empty() {
                    descriptor.text(schema::track::DESCRIPTION, &shown(description));
                }
            });
        });
        track
    }

    /// A new arrow.
    pub(super) fn new_flow(&mut self) -> Flow {
        self.flows_count += 1;
        Flow(self.flows_count)
    }

    /// Something without a length.
    pub(super) fn instant(&mut self, track: Track, time: HostNs, slice: &Slice<'_>) {
        self.event(track, time, EventType::Instant, slice);
    }

    /// A slice that begins, and is open until its end.
    pub(super) fn begin(&mut self, track: Track, time: HostNs, slice: &Slice<'_>) {
        self.event(track, time, EventType::Begin, slice);
    }

    /// The end of the slice that began last.
    pub(super) fn end(&mut self, track: Track, time: HostNs) {
        self.event(track, time, EventType::End, &Slice::default());
    }

    /// A slice in which nothing else is.
    pub(super) fn slice(&mut self, track: Track, time: [HostNs; 2], slice: &Slice<'_>) {
        self.begin(track, time[0], slice);
        self.end(track, time[1]);
    }

    fn event(&mut self, track: Track, time: HostNs, of: EventType, slice: &Slice<'_>) {
        let Trace { packets, words, start, sequences, .. } = self;
        // The `uuid` of a track is its place, from one on.
        let place = usize::try_from(track.0).ok().and_then(|uuid| uuid.checked_sub(1));
        let Some(sequence) = place.and_then(|place| sequences.get_mut(place)) else { return };
        let number = SEQUENCE + track.0;
        let order = if sequence.has_causes { Order::Causes(number) } else { Order::Rest(number) };
        let last = *sequence.last.get_or_insert_with(|| {
            packets.push(order, |packet| open(packet, number, track, *start));
            *start
        });
        packets.push(order, |packet| {
            head(packet, number);
            packet.message(schema::packet::TRACK_EVENT, |event| {
                event.uint(schema::event::TYPE, of as u64);
                words.write_event(event, slice, &mut sequence.told);
            });
            words.define(packet);
            if let Some(since_ns) = time.0.checked_sub(last.0) {
                sequence.last = Some(time);
                packet.uint(schema::packet::TIMESTAMP, since_ns);
            } else {
                packet.uint(schema::packet::TIMESTAMP, time.0);
                packet.uint(schema::packet::TIMESTAMP_CLOCK_ID, schema::clock::MONOTONIC_RAW);
            }
        });
    }
}

/// What each packet begins with.
fn head(packet: &mut Message, sequence: u64) {
    packet.uint(schema::packet::TRUSTED_PACKET_SEQUENCE_ID, sequence);
    packet.uint(schema::packet::SEQUENCE_FLAGS, schema::packet::NEEDS_STATE);
}

/// The first packet of a track's sequence: what its packets need not say, and where its clock begins.
fn open(packet: &mut Message, sequence: u64, track: Track, start: HostNs) {
    packet.uint(schema::packet::TRUSTED_PACKET_SEQUENCE_ID, sequence);
    packet.uint(schema::packet::SEQUENCE_FLAGS, schema::packet::STATE_CLEARED);
    packet.uint(schema::packet::FIRST_PACKET_ON_SEQUENCE, 1);
    packet.message(schema::packet::TRACE_PACKET_DEFAULTS, |defaults| {
        defaults.uint(schema::defaults::TIMESTAMP_CLOCK_ID, SEQUENCE_CLOCK);
        defaults.message(schema::defaults::TRACK_EVENT_DEFAULTS, |event| {
            event.uint(schema::event::TRACK_UUID, track.0);
        });
    });
    packet.message(schema::packet::CLOCK_SNAPSHOT, |snapshot| {
        snapshot.message(schema::clock::CLOCKS, |clock| {
            clock.uint(schema::clock::CLOCK_ID, SEQUENCE_CLOCK);
            clock.uint(schema::clock::TIMESTAMP, start.0);
            clock.uint(schema::clock::IS_INCREMENTAL, 1);
        });
        snapshot.message(schema::clock::CLOCKS, |clock| {
            clock.uint(schema::clock::CLOCK_ID, schema::clock::MONOTONIC_RAW);
            clock.uint(schema::clock::TIMESTAMP, start.0);
        });
    });
}

/// Text of a stranger as it is written: see [`harmless`].
pub(super) fn shown(text: &str) -> String {
    let mut text = harmless(text);
    if let Some((end, _)) = text.char_indices().nth(LETTERS_MAX) {
        text.truncate(end);
    }
    text
}

/// What a word is of; each kind has numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Category,
    Name,
    NoteName,
    NoteText,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Category, Kind::Name, Kind::NoteName, Kind::NoteText];

    fn field(self) -> u32 {
        match self {
            Kind::Category => schema::interned::EVENT_CATEGORIES,
            Kind::Name => schema::interned::EVENT_NAMES,
            Kind::NoteName => schema::interned::DEBUG_ANNOTATION_NAMES,
            Kind::NoteText => schema::interned::DEBUG_ANNOTATION_STRING_VALUES,
        }
    }
}

/// The words that were written so far.
#[derive(Debug, Default)]
struct Words {
    numbers: [HashMap<String, u64>; Kind::ALL.len()],
    /// Those that this packet uses first.
    new: Message,
}

/// Of the words of each kind, those that a sequence was told.
#[derive(Debug, Default)]
struct Told([Vec<u64>; Kind::ALL.len()]);

impl Told {
    /// Whether it was not before.
    fn insert(&mut self, kind: Kind, number: u64) -> bool {
        let words = &mut self.0[kind as usize];
        let (place, bit) = (usize::try_from(number / 64).unwrap_or(0), 1 << (number % 64));
        if words.len() <= place {
            words.resize(place + 1, 0);
        }
        let is_new = words[place] & bit == 0;
        words[place] |= bit;
        is_new
    }
}

impl Words {
    /// All of an event but its type.
    fn write_event(&mut self, event: &mut Message, slice: &Slice<'_>, told: &mut Told) {
        if !slice.name.is_empty() {
            let fields = [schema::event::NAME_IID, schema::event::NAME];
            self.write(event, (Kind::Name, slice.name), fields, told);
        }
        if !slice.category.is_empty() {
            let fields = [schema::event::CATEGORY_IIDS, schema::event::CATEGORIES];
            self.write(event, (Kind::Category, slice.category), fields, told);
        }
        if let Some(Flow(flow)) = slice.begins {
            event.fixed(schema::event::FLOW_IDS, flow);
        }
        if let Some(Flow(flow)) = slice.ends {
            event.fixed(schema::event::TERMINATING_FLOW_IDS, flow);
        }
        slice.notes.iter().for_each(|note| {
            event.message(schema::event::DEBUG_ANNOTATIONS, |to| self.note(to, note, told));
        });
    }

    /// A word by its number, or as it is where there are too many.
    fn write(
        &mut self,
        to: &mut Message,
        (kind, word): (Kind, &str),
        [by_iid, as_is]: [u32; 2],
        told: &mut Told,
    ) {
        let Some(iid) = self.number(kind, word) else {
            to.text(as_is, &shown(word));
            return;
        };
        to.uint(by_iid, iid);
        if told.insert(kind, iid) {
            self.new.message(kind.field(), |entry| {
                entry.uint(schema::interned::IID, iid);
                entry.text(schema::interned::TEXT, &shown(word));
            });
        }
    }

    fn number(&mut self, kind: Kind, word: &str) -> Option<u64> {
        let numbers = &mut self.numbers[kind as usize];
        if let Some(number) = numbers.get(word) {
            return Some(*number);
        }
        let iid = numbers.len() as u64 + 1;
        if numbers.len() >= WORDS_MAX || word.len() > LETTERS_MAX {
            return None;
        }
        numbers.insert(word.to_owned(), iid);
        Some(iid)
    }

    /// What the words of this packet are, where that has not been written yet.
    fn define(&mut self, packet: &mut Message) {
        if !self.new.is_empty() {
            packet.bytes(schema::packet::INTERNED_DATA, self.new.as_bytes());
            self.new.clear();
        }
    }

    fn note(&mut self, to: &mut Message, note: &Note<'_>, told: &mut Told) {
        let fields = [schema::annotation::NAME_IID, schema::annotation::NAME];
        self.write(to, (Kind::NoteName, note.name), fields, told);
        self.value(to, &note.value, told);
    }

    fn word(&mut self, to: &mut Message, word: &str, told: &mut Told) {
        let fields = [schema::annotation::STRING_VALUE_IID, schema::annotation::STRING_VALUE];
        self.write(to, (Kind::NoteText, word), fields, told);
    }

    fn value(&mut self, to: &mut Message, value: &Value<'_>, told: &mut Told) {
        match value {
            Value::Bool(value) => to.uint(schema::annotation::BOOL_VALUE, u64::from(*value)),
            Value::Count(value) => to.uint(schema::annotation::UINT_VALUE, *value),
            Value::Number(value) => to.int(schema::annotation::INT_VALUE, *value),
            Value::Address(value) => to.uint(schema::annotation::POINTER_VALUE, *value),
            Value::Text(text) => to.text(schema::annotation::STRING_VALUE, &shown(text)),
            Value::Name(name) => self.word(to, name, told),
            Value::Word(word) => self.word(to, word, told),
            Value::Notes(notes) => notes.iter().for_each(|note| {
                to.message(schema::annotation::DICT_ENTRIES, |entry| self.note(entry, note, told));
            }),
            Value::List(values) => values.iter().for_each(|value| {
                to.message(schema::annotation::ARRAY_VALUES, |entry| {
                    self.value(entry, value, told);
                });
            }),
        }
    }
}
