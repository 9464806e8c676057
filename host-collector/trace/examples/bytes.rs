//! How many bytes an item takes in the streams of a run, and how long it takes to write and to read it.
//!
//! `cargo run --release -p vslice-trace --example bytes -- RUN` with a run of this or an earlier version: its items
//! are written anew, into memory, and have to come back. Of each part of the events and the requests it says the bytes an item before they are packed.

#![expect(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};
use vslice_core::host_event::HostEvent;
use vslice_core::samples::SampleItem;
use vslice_trace::{
    ClockSample, Columnar, HogGapItem, ObservedItem, RequestItem, StreamReader, StreamWriter,
};
use vslice_wire::leb128;

fn main() -> Result<(), Box<dyn Error>> {
    let run = std::env::args_os().nth(1).ok_or("which run?")?;
    let mut paths: Vec<_> = std::fs::read_dir(run)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let measured = match name.split_once('-') {
            Some(("events", _)) => measure::<HostEvent>(&path)?,
            Some(("requests", _)) => measure::<RequestItem>(&path)?,
            Some(("observed", _)) => measure::<ObservedItem>(&path)?,
            Some(("gaps", _)) => measure::<HogGapItem>(&path)?,
            Some(("samples", _)) => measure::<SampleItem>(&path)?,
            Some(("clock", _)) => measure::<ClockSample>(&path)?,
            _ => continue,
        };
        println!("{name}: {measured}");
    }
    Ok(())
}

fn measure<T: Columnar + PartialEq>(path: &Path) -> Result<String, Box<dyn Error>> {
    let mut reader = StreamReader::<T>::open(path)?;
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::<T, _>::new(&mut bytes, path)?;
    let (mut count, mut writing) = (0_u64, Duration::ZERO);
    let mut parts_bytes = vec![0; T::PARTS];
    while let Some(mut items) = reader.next_block()? {
        count += items.len() as u64;
        T::arrange(&mut items);
        add_parts(&items, &mut parts_bytes)?;
        let start = Instant::now();
        for item in items {
            writer.push(item)?;
        }
        writer.flush()?;
        writing += start.elapsed();
    }
    writer.finish()?;
    let reading = read_again::<T>(&bytes, path)?;
    let each = |of: f64| of / count.max(1) as f64;
    let before = std::fs::metadata(path)?.len();
    let parts = parts_bytes.iter().map(|bytes| format!(" {:.3}", each(*bytes as f64)));
    Ok(format!(
        "{count} items, bytes each {:.2}, were {:.2}; ns each to write {:.0}, to read {:.0}; parts:{}",
        each(bytes.len() as f64),
        each(before as f64),
        each(writing.as_nanos() as f64),
        each(reading.as_nanos() as f64),
        parts.collect::<String>(),
    ))
}

/// How long it takes to read what was written, which has to be what is in the run.
fn read_again<T: Columnar + PartialEq>(
    bytes: &[u8],
    path: &Path,
) -> Result<Duration, Box<dyn Error>> {
    let mut first = StreamReader::<T>::open(path)?;
    let mut again = StreamReader::<T, _>::new(bytes, path)?;
    let mut reading = Duration::ZERO;
    loop {
        let mut expected = first.next_block()?.unwrap_or_default();
        T::arrange(&mut expected);
        let start = Instant::now();
        let read = again.next_block()?.unwrap_or_default();
        reading += start.elapsed();
        if read != expected {
            return Err(format!("{} comes back otherwise", path.display()).into());
        }
        if read.is_empty() {
            return Ok(reading);
        }
    }
}

fn add_parts<T: Columnar>(items: &[T], parts_bytes: &mut [u64]) -> Result<(), Box<dyn Error>> {
    let mut payload = Vec::new();
    T::encode(items, &mut payload);
    let mut rest = payload.as_slice();
    for bytes in parts_bytes {
        *bytes += leb128::take(&mut rest).map_err(|_| "a payload begins with its lengths")?;
    }
    Ok(())
}
