//! Which conditions an experiment compares: every combination of a few lists, as TOML. Pure.

use crate::plan::{DiskPlan, Plan, PlanError};
use crate::quantity;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use vslice_host::disk::{Aio, Cache, DiskBus};

/// The built-in matrices, by name.
pub const BUILT_IN: [(&str, &str); 2] =
    [("quick", include_str!("matrices/quick.toml")), ("seed", include_str!("matrices/seed.toml"))];

/// Over so many iothreads [`Dataplane::Mapping`] spreads a disk's queues.
const MAPPED_IOTHREADS_COUNT: u16 = 2;

/// An experiment: a plan, and the settings in which its runs differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// Its name.
    pub name: String,
    /// What it is for, in one line.
    #[serde(default)]
    pub description: String,
    /// The plan that every run follows, but for its disks: a built-in plan's name or a TOML file.
    pub plan: String,
    /// The number of runs of each condition.
    pub repeat: u16,
    /// The total that each run's readers read, in bytes.
    #[serde(rename = "total", with = "quantity::bytes_text")]
    pub total_bytes: u64,
    /// The disks.
    pub disk: Vec<DiskKind>,
    /// Who serves them.
    pub dataplane: Vec<Dataplane>,
    /// How QEMU reads the image.
    #[serde(default = "aio_default")]
    pub aio: Vec<Aio>,
    /// How QEMU caches the image.
    #[serde(default = "cache_default")]
    pub cache: Vec<Cache>,
}

fn aio_default() -> Vec<Aio> {
    vec![Aio::Native]
}
fn cache_default() -> Vec<Cache> {
    vec![Cache::None]
}

/// A kind of disk that an experiment distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskKind {
    /// virtio-blk with an eventfd and MSI-X, QEMU's default.
    VirtioBlk,
    /// virtio-blk whose doorbell is an exit to QEMU.
    VirtioBlkNoIoeventfd,
    /// virtio-blk with one shared interrupt, whose status the guest reads.
    VirtioBlkIntx,
    /// A SCSI disk on virtio-scsi.
    VirtioScsi,
    /// The PIIX3 IDE controller.
    Ide,
    /// An AHCI controller.
    Ahci,
    /// NVMe.
    Nvme,
}

/// Who serves a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dataplane {
    /// QEMU's main loop, or the vCPU's own thread.
    Off,
    /// One iothread: what x-data-plane became.
    Iothread,
    /// Two iothreads, with the disk's queues spread over them (QEMU 9.0).
    Mapping,
}

/// One condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The disk.
    pub disk: DiskKind,
    /// Who serves it.
    pub dataplane: Dataplane,
    /// How QEMU reads the image.
    pub aio: Aio,
    /// How QEMU caches the image.
    pub cache: Cache,
}

/// Why a matrix cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is said in full by its message")]
pub enum MatrixError {
    #[error(
        "there is no matrix '{name}': it is neither a built-in matrix (quick, seed) nor the path \
             of a file"
    )]
    NotFound { name: String },
    #[error("cannot read the matrix {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{origin} is not a matrix: {source}")]
    Syntax { origin: String, source: Box<toml::de::Error> },
    #[error("matrix '{matrix}': {key} is empty, so there is no condition to run")]
    Empty { matrix: String, key: &'static str },
    #[error("matrix '{matrix}': repeat = 0 would run nothing")]
    NoRepeat { matrix: String },
}

impl Matrix {
    /// Reads the built-in matrix of this name, or else the file at this path.
    ///
    /// # Errors
    /// [`MatrixError`].
    pub fn load(name_or_path: &str) -> Result<Matrix, MatrixError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return Matrix::parse(name, text);
        }
        match std::fs::read_to_string(Path::new(name_or_path)) {
            Ok(text) => Matrix::parse(name_or_path, &text),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(MatrixError::NotFound { name: name_or_path.to_owned() })
            }
            Err(source) => Err(MatrixError::Read { path: name_or_path.to_owned(), source }),
        }
    }

    /// Reads a matrix; `origin` is what its errors call it.
    ///
    /// # Errors
    /// [`MatrixError`].
    pub fn parse(origin: &str, text: &str) -> Result<Matrix, MatrixError> {
        let syntax =
            |source| MatrixError::Syntax { origin: origin.to_owned(), source: Box::new(source) };
        let matrix: Matrix = toml::from_str(text).map_err(syntax)?;
        let name = || matrix.name.clone();
        let lists = [
            ("disk", matrix.disk.is_empty()),
            ("dataplane", matrix.dataplane.is_empty()),
            ("aio", matrix.aio.is_empty()),
            ("cache", matrix.cache.is_empty()),
        ];
        if let Some((key, _)) = lists.into_iter().find(|(_, is_empty)| *is_empty) {
            return Err(MatrixError::Empty { matrix: name(), key });
        }
        if matrix.repeat == 0 {
            return Err(MatrixError::NoRepeat { matrix: name() });
        }
        Ok(matrix)
    }

    /// All combinations, each once.
    #[must_use]
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &disk in &self.disk {
            for &aio in &self.aio {
                for &cache in &self.cache {
                    for &dataplane in &self.dataplane {
                        let cell = Cell { disk, dataplane, aio, cache };
                        if !cells.contains(&cell) {
                            cells.push(cell);
                        }
                    }
                }
            }
        }
        cells
    }

    /// The plan that all cells start from.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn base_plan(&self) -> Result<Plan, PlanError> {
        let mut plan = Plan::load(&self.plan)?;
        let readers = plan.vms.iter_mut().filter_map(|vm| vm.reader.as_mut());
        readers.for_each(|reader| reader.total_bytes = self.total_bytes);
        plan.check()?;
        Ok(plan)
    }
}

impl Cell {
    /// The plan with this cell's disks.
    ///
    /// # Errors
    /// Fails with [`PlanError::Impossible`] and the reason why there is no such disk.
    pub fn plan(&self, base: &Plan) -> Result<Plan, PlanError> {
        let mut plan = base.clone();
        for disk in plan.vms.iter_mut().filter_map(|vm| vm.disk.as_mut()) {
            self.change(disk);
        }
        plan.check()?;
        Ok(plan)
    }

    fn change(&self, disk: &mut DiskPlan) {
        disk.bus = match self.disk {
            DiskKind::VirtioBlk | DiskKind::VirtioBlkNoIoeventfd | DiskKind::VirtioBlkIntx => {
                DiskBus::VirtioBlk
            }
            DiskKind::VirtioScsi => DiskBus::VirtioScsi,
            DiskKind::Ide => DiskBus::Ide,
            DiskKind::Ahci => DiskBus::Ahci,
            DiskKind::Nvme => DiskBus::Nvme,
        };
        disk.ioeventfd = self.disk != DiskKind::VirtioBlkNoIoeventfd;
        disk.msix = self.disk != DiskKind::VirtioBlkIntx;
        disk.iothread = self.dataplane != Dataplane::Off;
        disk.iothreads =
            if self.dataplane == Dataplane::Mapping { MAPPED_IOTHREADS_COUNT } else { 1 };
        (disk.aio, disk.cache) = (self.aio, self.cache);
        disk.queues = match disk.queues {
            // What a plan says of queues is for virtio.
            Some(_) if !disk.bus.is_virtio() => None,
            // Each iothread needs one.
            Some(queues) => Some(queues.max(disk.iothreads)),
            None => None,
        };
    }
}

/// As `virtio-blk.iothread.native.none`: a directory's name.
impl fmt::Display for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [word(&self.disk), word(&self.dataplane), word(&self.aio), word(&self.cache)];
        formatter.write_str(&words.join("."))
    }
}

/// What a matrix calls it.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => unreachable!("units of enums are words, this is {other:?}"),
    }
}

/// The order of the runs, as indices of cells: A B B A A B ..., so that drift in the host favours none of
/// them.
#[must_use]
pub fn alternating(cells_count: usize, repeat: u16) -> Vec<(usize, u16)> {
    let mut order = Vec::new();
    for number in 1..=repeat {
        let turn = (0..cells_count).map(|cell| (cell, number));
        if number % 2 == 1 { order.extend(turn) } else { order.extend(turn.rev()) }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_matrices_are_sound_and_their_plans_are_there() {
        for (name, _) in BUILT_IN {
            let matrix = Matrix::load(name).expect("built in");
            assert_eq!(matrix.name, name);
            let base = matrix.base_plan().expect("its plan is built in");
            assert!(matrix.cells().iter().any(|cell| cell.plan(&base).is_ok()));
        }
    }

    #[test]
    fn the_seed_asks_for_every_disk_and_says_which_cannot_be() {
        let matrix = Matrix::load("seed").expect("built in");
        let base = matrix.base_plan().expect("built in");
        assert_eq!(matrix.cells().len(), 21);
        let why = |name: &str| {
            let cell = matrix.cells().into_iter().find(|cell| cell.to_string() == name);
            cell.expect("it is one of them").plan(&base).err().map(|error| error.to_string())
        };
        assert_eq!(why("virtio-blk.iothread.native.none"), None);
        assert_eq!(why("virtio-blk-intx.iothread.native.none"), None);
        assert_eq!(why("virtio-blk.mapping.native.none"), None);
        assert_eq!(why("virtio-scsi.mapping.native.none"), None, "since QEMU 10.0");
        assert_eq!(why("ide.off.native.none"), None, "the seed's one queue is virtio's");
        for (name, reason) in [
            ("ide.iothread.native.none", "iothread = true is for virtio disks"),
            ("virtio-blk-no-ioeventfd.iothread.native.none", "needs ioeventfd = true"),
        ] {
            let why = why(name).expect("it cannot be");
            assert!(why.contains(reason), "{name}: {why}");
        }
    }

    #[test]
    fn a_cell_is_a_disk_of_the_plan() {
        let matrix = Matrix::load("seed").expect("built in");
        let base = matrix.base_plan().expect("built in");
        let cell = Cell {
            disk: DiskKind::VirtioBlkIntx,
            dataplane: Dataplane::Mapping,
            aio: Aio::Threads,
            cache: Cache::Writeback,
        };
        let plan = cell.plan(&base).expect("possible");
        let disk = plan.vms[0].disk.as_ref().expect("VM1 has one");
        assert_eq!((disk.bus, disk.msix, disk.ioeventfd), (DiskBus::VirtioBlk, false, true));
        assert_eq!((disk.iothread, disk.iothreads, disk.queues), (true, 2, Some(2)));
        assert_eq!((disk.aio, disk.cache), (Aio::Threads, Cache::Writeback));
    }

    #[test]
    fn runs_alternate() {
        let order = alternating(2, 3);
        assert_eq!(order, [(0, 1), (1, 1), (1, 2), (0, 2), (0, 3), (1, 3)]);
        for cell in 0..5 {
            let runs = alternating(5, 4).into_iter().filter(|(place, _)| *place == cell);
            assert_eq!(runs.count(), 4);
        }
    }

    #[test]
    fn what_is_no_matrix_says_why() {
        let quick = BUILT_IN[0].1;
        let error = |from: &str, to: &str| {
            Matrix::parse("test", &quick.replacen(from, to, 1)).expect_err("impossible").to_string()
        };
        assert!(error("repeat = 5", "repeat = 0").contains("repeat = 0 would run nothing"));
        assert!(error("aio = [\"native\"]", "aio = []").contains("aio is empty"));
        assert!(error("\"ide\"", "\"floppy\"").contains("floppy"));
        let message = Matrix::load("fast").expect_err("there is none").to_string();
        assert!(message.contains("a built-in matrix (quick, seed)"), "{message}");
    }
}
