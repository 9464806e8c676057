#!/usr/bin/env python3
"""Decodes a trace by Perfetto's own descriptors (PyPI `perfetto`), checks what its documentation demands, and prints what
is in it as JSON.

It fails where a message, a field or an enum's value is not known there; where compressed packets do not inflate or are
longer than a reader has room for; where a word or a track is used that was not told of; where slices of a track do not
nest; where columns of scheduling events differ in length; where an arrow's beginning is not before its end, or is not
there.
"""

import json
import sys
import zlib
from collections import defaultdict

from google.protobuf.unknown_fields import UnknownFieldSet
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

# protos/perfetto/trace/trace_packet.proto, `compressed_packets`.
COMPRESSED_MAX = 512 << 10

WORDS = {
    "event_categories": "category",
    "event_names": "name",
    "debug_annotation_names": "note",
    "debug_annotation_string_values": "text",
}


def known(message, where):
    """Every field of the message and of those within it is one of the descriptors."""
    unknown = [field.field_number for field in UnknownFieldSet(message)]
    assert not unknown, f"{where}: fields {unknown} are not known"
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        values = value if field.is_repeated else [value]
        for one in values:
            known(one, f"{where}.{field.name}")


def packets(data):
    trace = pb.Trace.FromString(data)
    assert trace.packet, "an empty trace"
    for outer in trace.packet:
        known(outer, "TracePacket")
        assert outer.HasField("compressed_packets"), "a packet that is not compressed"
        assert outer.ByteSize() < COMPRESSED_MAX
        inner = zlib.decompress(outer.compressed_packets)
        for packet in pb.Trace.FromString(inner).packet:
            known(packet, "TracePacket")
            yield packet


class Sequence:
    """What the packets of a sequence rest on: its clock, its track, and its words."""

    def __init__(self, first):
        assert first.sequence_flags & pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        assert first.first_packet_on_sequence
        self.words = Words()
        defaults = first.trace_packet_defaults
        self.clock = defaults.timestamp_clock_id
        self.track = defaults.track_event_defaults.track_uuid
        clocks = {clock.clock_id: clock for clock in first.clock_snapshot.clocks}
        assert pb.BUILTIN_CLOCK_MONOTONIC_RAW in clocks
        self.now = None
        if self.clock != pb.BUILTIN_CLOCK_MONOTONIC_RAW:
            # protos/perfetto/trace/clock_snapshot.proto: clocks of a sequence alone, and only these, may be incremental.
            assert 64 <= self.clock < 128 and clocks[self.clock].is_incremental
            self.now = clocks[self.clock].timestamp
            assert self.now == clocks[pb.BUILTIN_CLOCK_MONOTONIC_RAW].timestamp
        else:
            assert first.clock_snapshot.primary_trace_clock == self.clock

    def time(self, packet):
        """The packet's time on the host's clock."""
        clock = packet.timestamp_clock_id or self.clock
        if clock == pb.BUILTIN_CLOCK_MONOTONIC_RAW:
            return packet.timestamp
        assert clock == self.clock
        self.now += packet.timestamp
        return self.now


class Words:
    """What was interned so far."""

    def __init__(self):
        self.known = {kind: {} for kind in WORDS.values()}

    def learn(self, data):
        for field, kind in WORDS.items():
            for entry in getattr(data, field):
                word = entry.str.decode() if kind == "text" else entry.name
                assert entry.iid and entry.iid not in self.known[kind], (kind, entry.iid)
                self.known[kind][entry.iid] = word

    def value(self, note):
        which = note.WhichOneof("value")
        if which == "string_value_iid":
            return self.known["text"][note.string_value_iid]
        if which is not None:
            return getattr(note, which)
        if note.dict_entries:
            return self.notes(note.dict_entries)
        return [self.value(one) for one in note.array_values]

    def notes(self, notes):
        name = lambda note: self.known["note"][note.name_iid] if note.name_iid else note.name
        told = {name(note): self.value(note) for note in notes}
        assert len(told) == len(notes), "two notes of one name"
        return told


def bundle(cpu, bundle, sched):
    assert bundle.ftrace_clock == pb.FTRACE_CLOCK_MONO_RAW
    compact = bundle.compact_sched
    names = list(compact.intern_table)
    columns = [compact.switch_timestamp, compact.switch_prev_state, compact.switch_next_pid]
    columns += [compact.switch_next_prio, compact.switch_next_comm_index]
    assert len({len(column) for column in columns}) == 1, "switches differ in length"
    time = 0
    for delta, state, pid, priority, name in zip(*columns):
        time += delta
        sched.append(("switch", time, cpu, None, state, pid, priority, names[name]))
    columns = [compact.waking_timestamp, compact.waking_pid, compact.waking_target_cpu]
    columns += [compact.waking_prio, compact.waking_comm_index]
    assert len({len(column) for column in columns}) == 1, "wakings differ in length"
    time = 0
    for delta, pid, target, _, name in zip(*columns):
        time += delta
        sched.append(("waking", time, cpu, None, pid, target, names[name]))
    for event in bundle.event:
        which = event.WhichOneof("event")
        of = getattr(event, which)
        if which == "sched_switch":
            told = (of.prev_pid, of.prev_state, of.next_pid, of.next_prio, of.next_comm)
            sched.append(("switch", event.timestamp, cpu, *told))
        elif which == "sched_waking":
            sched.append(("waking", event.timestamp, cpu, event.pid, of.pid, of.target_cpu, of.comm))


def inferred(sched):
    """Who was on each pCPU, as Perfetto infers it (src/trace_processor/importers/ftrace/ftrace_sched_event_tracker.cc)."""
    stays, last = [], {}
    for kind, time, cpu, prev, *told in sorted(sched, key=lambda event: (event[1], event[2])):
        if kind == "waking":
            waker = prev if prev is not None else last[cpu][0]
            stays.append({"kind": "waking", "pcpu": cpu, "time": time, "waker": waker, "tid": told[0]})
            continue
        state, pid, priority, name = told
        if cpu in last:
            tid, since, called = last[cpu]
            assert prev is None or prev == tid, f"at {time} {prev} leaves pCPU {cpu}, where {tid} is"
            stay = {"kind": "stay", "pcpu": cpu, "tid": tid, "name": called, "start": since}
            stays.append(stay | {"end": time, "state": state})
        else:
            assert prev is not None, f"who left pCPU {cpu} first is not told"
            stays.append({"kind": "left", "pcpu": cpu, "tid": prev, "time": time, "state": state})
        last[cpu] = (pid, time, name)
    for cpu, (tid, since, name) in last.items():
        stays.append({"kind": "open", "pcpu": cpu, "tid": tid, "name": name, "start": since})
    return stays


def slices(events, tracks):
    """Slices with what they are in; Perfetto sorts by time, and leaves the order of the file where times are equal."""
    done, open_on, flows = [], defaultdict(list), {}
    for order, (time, track, event, name, categories, notes) in sorted(
        enumerate(events), key=lambda pair: (pair[1][0], pair[0])
    ):
        assert track in tracks, f"track {track} was not described"
        if event.type == pb.TrackEvent.TYPE_SLICE_END:
            assert open_on[track], f"an end without a beginning on {tracks[track]}"
            open_on[track].pop()["end"] = time
            continue
        within = open_on[track][-1]["id"] if open_on[track] else None
        told = {"id": order, "track": track, "name": name, "start": time, "in": within}
        told |= {"depth": len(open_on[track]), "notes": notes, "categories": categories}
        done.append(told)
        if event.type == pb.TrackEvent.TYPE_SLICE_BEGIN:
            open_on[track].append(told)
        else:
            assert event.type == pb.TrackEvent.TYPE_INSTANT
            told["end"] = time
        assert not set(event.flow_ids) & set(event.terminating_flow_ids)
        # src/trace_processor/importers/proto/track_event_event_importer.h: the first with an id begins the arrow, one
        # that terminates it has to find it begun.
        for flow in event.flow_ids:
            flows.setdefault(flow, []).append(told["id"])
            assert len(flows[flow]) == 1, f"arrow {flow} has two beginnings"
        for flow in event.terminating_flow_ids:
            assert flow in flows, f"arrow {flow} ends before it begins"
            flows[flow].append(told["id"])
            assert len(flows[flow]) == 2, f"arrow {flow} has two ends"
    left = {tracks[track]: len(of) for track, of in open_on.items() if of}
    assert not left, f"slices that do not end: {left}"
    by_id = {told["id"]: told for told in done}
    for told in done:
        if told["in"] is not None:
            outer = by_id[told["in"]]
            inside = outer["start"] <= told["start"] and told["end"] <= outer["end"]
            assert inside, f"{told} is not within {outer}"
    for flow, ends in flows.items():
        assert len(ends) == 2, f"arrow {flow} has no end"
    return done, list(flows.values())


def main():
    data = open(sys.argv[1], "rb").read()
    sequences, tracks, events, sched = {}, {}, [], []
    processes, threads, release, lost = {}, {}, None, []
    for packet in packets(data):
        number = packet.trusted_packet_sequence_id
        if number not in sequences:
            sequences[number] = Sequence(packet)
            assert number == 1 or 1 in sequences, "the clock of all comes first"
            continue
        assert packet.sequence_flags == pb.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        sequence = sequences[number]
        words = sequence.words
        words.learn(packet.interned_data)
        which = packet.WhichOneof("data")
        if which == "track_descriptor":
            of = packet.track_descriptor
            assert of.uuid and of.uuid not in tracks, f"track {of.uuid} twice"
            assert not of.parent_uuid or of.parent_uuid in tracks
            tracks[of.uuid] = {
                "parent": of.parent_uuid or None,
                "name": of.name or of.process.process_name or of.thread.thread_name,
                "pid": of.process.pid or of.thread.pid or None,
                "tid": of.thread.tid or None,
            }
        elif which == "track_event":
            of = packet.track_event
            name = words.known["name"][of.name_iid] if of.name_iid else of.name
            categories = [words.known["category"][iid] for iid in of.category_iids]
            categories += of.categories
            notes = words.notes(of.debug_annotations)
            events.append((sequence.time(packet), sequence.track, of, name, categories, notes))
        elif which == "ftrace_events":
            of = packet.ftrace_events
            assert of.cpu < 1024
            lost += [of.cpu] if of.lost_events else []
            bundle(of.cpu, of, sched)
        elif which == "process_tree":
            for process in packet.process_tree.processes:
                processes[process.pid] = " ".join(process.cmdline)
            for thread in packet.process_tree.threads:
                threads[thread.tid] = thread.tgid
        elif which == "system_info":
            release = packet.system_info.utsname.release
        else:
            raise AssertionError(which)
    told, arrows = slices(events, tracks)
    json.dump(
        {
            "tracks": {str(uuid): track for uuid, track in tracks.items()},
            "slices": told,
            "arrows": arrows,
            "sched": inferred(sched),
            "processes": {str(pid): name for pid, name in processes.items()},
            "threads": {str(tid): pid for tid, pid in threads.items()},
            "release": release,
            "lost": lost,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
