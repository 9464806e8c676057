//! A thread that reads a block device without pause, one block at a time.

use crate::machine;
use anyhow::{Context, bail};
use nix::time::{ClockId, clock_gettime};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use vslice_core::units::PcpuId;

/// The block size of a page cache, and of databases with small blocks.
const BLOCK_BYTES: usize = 4096;

/// Blocks that are read in turn.
const BLOCKS: u64 = 1024;

/// As in the other part of the bench: whatever else goes on comes and goes within hundreds of
/// milliseconds, and the price of recording is in all slices.
const SLICE_NS: u64 = 10_000_000;

/// What one window came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Reads that were done.
    pub(crate) requests_count: u64,
    /// By `CLOCK_MONOTONIC_RAW`.
    pub(crate) wall_ns: u64,
    /// What a read took in the slice at the lower quartile, in ns.
    pub(crate) quiet_ns: f64,
    /// Steal of the pCPU meanwhile, from `/proc/stat`.
    pub(crate) steal_ns: u64,
}

impl Window {
    #[expect(clippy::cast_precision_loss, reason = "windows are far shorter than 2^52 ns")]
    pub(crate) fn wall_ns_per_request(&self) -> f64 {
        self.wall_ns as f64 / self.requests_count.max(1) as f64
    }
}

/// The device that is read.
#[derive(Debug)]
pub(crate) struct Device {
    /// Its name in `/sys/block`.
    pub(crate) name: String,
    file: File,
    /// Detached when this is dropped.
    _loop: Option<LoopDevice>,
}

impl Device {
    pub(crate) fn open(path: Option<&Path>, scratch: &Path) -> anyhow::Result<Device> {
        let (path, of_loop) = match path {
            Some(path) => (path.to_owned(), None),
            None => {
                let made = LoopDevice::make(scratch)?;
                (made.path.clone(), Some(made))
            }
        };
        let direct = nix::libc::O_DIRECT;
        let file = OpenOptions::new().read(true).custom_flags(direct).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        if !file.metadata()?.file_type().is_block_device() {
            bail!("{} is no block device", path.display());
        }
        let name = path.file_name().and_then(|name| name.to_str()).context("a device's name")?;
        Ok(Device { name: name.to_owned(), file, _loop: of_loop })
    }

    /// Reads it for so long, on this pCPU.
    pub(crate) fn window(&self, pcpu: PcpuId, length: Duration) -> anyhow::Result<Window> {
        let steal = machine::steal_ns(pcpu)?;
        let mut window = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                machine::pin_to(pcpu)?;
                read(&self.file, u64::try_from(length.as_nanos())?)
            });
            reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?
        })?;
        window.steal_ns = machine::steal_ns(pcpu)?.saturating_sub(steal);
        Ok(window)
    }
}

fn read(file: &File, window_ns: u64) -> anyhow::Result<Window> {
    let mut memory = vec![0_u8; BLOCK_BYTES * 2];
    let start = memory.as_ptr().align_offset(BLOCK_BYTES);
    let block = memory.get_mut(start..start + BLOCK_BYTES).context("twice a block has one")?;
    let (begin, mut now, mut done) = (wall_ns()?, wall_ns()?, 0_u64);
    let mut slices = Vec::new();
    while now - begin < window_ns {
        let (slice_begin, before) = (now, done);
        while now - slice_begin < SLICE_NS {
            // So many that a look at the clock is little beside them.
            for _ in 0..16 {
                file.read_exact_at(block, done % BLOCKS * BLOCK_BYTES as u64)?;
                done += 1;
            }
            now = wall_ns()?;
        }
        slices.push((now - slice_begin) as f64 / (done - before) as f64);
    }
    slices.sort_by(f64::total_cmp);
    let quiet_ns = slices.get(slices.len() / 4).copied().unwrap_or(0.0);
    Ok(Window { requests_count: done, wall_ns: now - begin, quiet_ns, steal_ns: 0 })
}

fn wall_ns() -> anyhow::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_RAW)?;
    Ok(u64::try_from(Duration::from(now).as_nanos())?)
}

/// A loop device on memory, detached when this is dropped.
#[derive(Debug)]
struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    fn make(scratch: &Path) -> anyhow::Result<LoopDevice> {
        let image = scratch.join("image");
        std::fs::write(&image, vec![1; BLOCK_BYTES * usize::try_from(BLOCKS)?])?;
        let made = Command::new("losetup").args(["--find", "--show"]).arg(&image).output();
        let made = made.context("cannot run losetup (package mount)")?;
        if !made.status.success() {
            bail!("no loop device: {}", String::from_utf8_lossy(&made.stderr).trim());
        }
        Ok(LoopDevice { path: String::from_utf8(made.stdout)?.trim().into() })
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // Whoever still looks into it keeps it until he is done.
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}
