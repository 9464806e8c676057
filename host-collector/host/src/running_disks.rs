//! What shows of a running QEMU's disks that its command line does not tell. Images are changed while a VM runs, by
//! snapshots, mirrors and plugging: what the process has open is the kernel's word, and QEMU's own locks tell which of
//! its open files it writes to as a disk.

use super::disk::{Bus, Disk, Storage};
use super::open_files::{self, FileId, OpenFile};
use super::procfs;
use super::qemu_args::PassedThrough;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};
use vslice_core::units::Tid;

/// Where the kernel lists PCI devices.
const PCI_DEVICES: &str = "/sys/bus/pci/devices";

/// The beginning of the class of NVMe controllers (linux/include/linux/pci_ids.h, `PCI_CLASS_STORAGE_EXPRESS`).
const NVME_CLASS: &str = "0x0108";

/// The disks among the PCI devices that a guest drives itself.
#[must_use]
pub(crate) fn passed_through(devices: &[PassedThrough]) -> Vec<Disk> {
    among(devices, Path::new(PCI_DEVICES))
}

fn among(devices: &[PassedThrough], listed: &Path) -> Vec<Disk> {
    let is_nvme = |device: &&PassedThrough| {
        let class = fs::read_to_string(listed.join(&device.address).join("class"));
        class.is_ok_and(|class| class.starts_with(NVME_CLASS))
    };
    let disk = |device: &PassedThrough| Disk {
        id: device.id.clone(),
        storage: Storage::Passthrough { address: device.address.clone() },
        ..Disk::new(Bus::Other("nvme".to_owned()))
    };
    devices.iter().filter(is_nvme).map(disk).collect()
}

/// A file that a QEMU writes to as a disk, and that its command line does not name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnnamedImage {
    /// Its path, as QEMU opened it.
    pub path: PathBuf,
    /// Whether it is open with `O_DIRECT`.
    pub is_direct: bool,
}

impl fmt::Display for UnnamedImage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.is_direct { "O_DIRECT" } else { "host page cache" };
        write!(formatter, "{} ({how})", self.path.display())
    }
}

/// Takes what the open files of a QEMU with this command line say of its disks, and returns those that it does not
/// name. Files that this user may not see say nothing.
pub(crate) fn note_open_files(pid: Tid, words: &[String], disks: &mut [Disk]) -> Vec<UnnamedImage> {
    let Ok(files) = open_files::open_files(pid) else { return Vec::new() };
    let places = note_ways(pid, &files, disks);
    for (disk, place) in disks.iter_mut().zip(&places) {
        let own = place.among(&files);
        if own.is_empty() && place.is_certain {
            disk.contradiction = Some("its process does not have that file open".to_owned());
        }
        if !own.is_empty() && own.iter().all(|file| file.is_deleted()) {
            disk.contradiction = Some("that file was deleted, and is still open".to_owned());
        }
    }
    // A disk that was handed over open has no name that could be looked for.
    if disks.iter().any(|disk| matches!(disk.storage, Storage::Unknown { .. })) {
        return Vec::new();
    }
    let named = Named::new(pid, words, &places);
    let unnamed: Vec<UnnamedImage> = written(&files)
        .into_iter()
        .filter(|file| !named.has(file))
        .map(|file| UnnamedImage { path: file.path.clone(), is_direct: file.is_direct() })
        .collect();
    let elsewhere = match &unnamed[..] {
        [] => return Vec::new(),
        [one] => one.to_string(),
        _ => "other files".to_owned(),
    };
    for (disk, place) in disks.iter_mut().zip(&places) {
        let own = place.among(&files);
        let is_read = !own.is_empty() && own.iter().all(|file| !file.is_writable());
        if is_read && !disk.is_read_only && !disk.is_cdrom {
            disk.contradiction =
                Some(format!("that file is open for reading only, and QEMU writes to {elsewhere}"));
        }
    }
    unnamed
}

/// Takes how the files of another VMM's disks are open. Which of its files it writes to as disks, nothing tells, and
/// another process of it may have them.
pub(crate) fn note_how_open(pid: Tid, disks: &mut [Disk]) -> Vec<UnnamedImage> {
    let files = open_files::open_files(pid).unwrap_or_default();
    note_ways(pid, &files, disks);
    Vec::new()
}

fn note_ways(pid: Tid, files: &[OpenFile], disks: &mut [Disk]) -> Vec<Place> {
    let place = |disk: &mut Disk| {
        let place = Place::of(pid, disk);
        disk.note_open(open_files::is_direct(&place.among(files)));
        place
    };
    disks.iter_mut().map(place).collect()
}

/// Where a disk's file is.
#[derive(Debug, Default)]
struct Place {
    /// The file by this path where QEMU is now, and where this process is: QEMU may have left the directory in which
    /// it began (`-daemonize`), or the root (`-chroot`).
    ids: Vec<FileId>,
    /// Its path, as QEMU has it.
    path: Option<PathBuf>,
    /// The end of a relative path, which is all that its file's name has to have.
    end: Option<PathBuf>,
    /// Whether it would be among the open files if QEMU had it open.
    is_certain: bool,
}

impl Place {
    fn of(pid: Tid, disk: &Disk) -> Place {
        let Some(path) = disk.path() else { return Place::default() };
        let found = fs::metadata(procfs::seen_by(pid, path));
        let is_certain = match &found {
            // A SCSI generic device is a character device, which is no image.
            Ok(file) => !file.file_type().is_char_device(),
            Err(error) => path.is_absolute() && error.kind() == std::io::ErrorKind::NotFound,
        };
        let here = path.is_absolute().then(|| fs::metadata(path).ok()).flatten();
        let ids = found.ok().into_iter().chain(here).filter_map(|file| FileId::of(&file)).collect();
        let end: PathBuf =
            path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let end = Some(end).filter(|end| path.is_relative() && !end.as_os_str().is_empty());
        Place { ids, path: Some(path.to_owned()), end, is_certain }
    }

    /// Those of the files that are this one. One that was deleted, or that a relative path led to, is known by its
    /// name.
    fn among<'a>(&self, files: &'a [OpenFile]) -> Vec<&'a OpenFile> {
        let is_it = |file: &&OpenFile| self.ids.contains(&file.id) || self.has_name_of(file);
        files.iter().filter(is_it).collect()
    }

    fn has_name_of(&self, file: &OpenFile) -> bool {
        let name = file.path_when_opened();
        self.path.as_deref() == Some(name)
            || self.end.as_ref().is_some_and(|end| name.ends_with(end))
    }
}

/// The files that a command line names, whatever for.
struct Named<'a> {
    words: &'a [String],
    ids: BTreeSet<FileId>,
}

impl<'a> Named<'a> {
    fn new(pid: Tid, words: &'a [String], places: &[Place]) -> Named<'a> {
        let is_end = |letter: char| matches!(letter, ',' | '=' | '"' | ':' | ';');
        let pieces =
            words.iter().flat_map(|word| word.split(is_end)).filter(|piece| piece.starts_with('/'));
        let found =
            pieces.filter_map(|path| fs::metadata(procfs::seen_by(pid, Path::new(path))).ok());
        let ids = found.filter_map(|file| FileId::of(&file));
        Named { words, ids: ids.chain(places.iter().flat_map(|place| place.ids.clone())).collect() }
    }

    fn has(&self, file: &OpenFile) -> bool {
        let name = file.path_when_opened().file_name().map(|name| name.to_string_lossy());
        let is_named = |name: &str| self.words.iter().any(|word| word.contains(name));
        self.ids.contains(&file.id) || name.is_none_or(|name| is_named(&name))
    }
}

/// The files that a QEMU writes to as disks: block devices, and files that it has locked so, each once. What is under
/// `-snapshot` goes to a file without a name.
fn written(files: &[OpenFile]) -> Vec<&OpenFile> {
    let locked = files.iter().filter(|file| file.is_written_by_qemu());
    let locked: BTreeSet<FileId> = locked.map(|file| file.id).collect();
    let is_block = |file: &OpenFile| matches!(file.id, FileId::Block { .. });
    let is_temporary = |file: &OpenFile| {
        let name = file.path_when_opened().file_name().map(|name| name.to_string_lossy());
        file.is_deleted() && name.is_some_and(|name| name.starts_with("vl."))
    };
    let mut written: Vec<&OpenFile> = files
        .iter()
        .filter(|file| file.may_be_image() && file.is_writable() && !is_temporary(file))
        .filter(|file| is_block(file) || locked.contains(&file.id))
        .collect();
    written.sort_by_key(|file| (file.id, file.fd));
    written.dedup_by_key(|file| file.id);
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, fcntl};
    use std::fs::{File, OpenOptions};

    /// Takes the lock that QEMU holds on an image that it writes to.
    fn lock(file: &File, byte: i64) {
        let short = |word: i32| libc::c_short::try_from(word).expect("a small number");
        let lock = libc::flock {
            l_type: short(libc::F_RDLCK),
            l_whence: short(libc::SEEK_SET),
            l_start: byte,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).expect("a lock that nobody else has");
    }

    fn on(path: &Path) -> Disk {
        Disk { storage: Storage::file(path), ..Disk::new(Bus::Other("ide".to_owned())) }
    }

    /// This process is the VMM here.
    fn noted(words: &[&str], disks: &mut [Disk]) -> Vec<UnnamedImage> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        note_open_files(Tid(std::process::id()), &words, disks)
    }

    #[test]
    fn a_file_that_is_not_open_contradicts_the_command_line() {
        let directory = tempfile::tempdir_in("/var/tmp").expect("writable");
        let path = |name: &str| directory.path().join(name);
        for name in ["open", "closed", "deleted"] {
            fs::write(path(name), b"x").expect("room");
        }
        let _open = File::open(path("open")).expect("there");
        let _deleted = File::open(path("deleted")).expect("there");
        fs::remove_file(path("deleted")).expect("there");
        let mut disks = ["open", "closed", "deleted", "never"].map(|name| on(&path(name))).to_vec();
        disks.extend([
            on(Path::new("/dev/null")),
            Disk { storage: Storage::Empty, ..on(Path::new("")) },
        ]);
        noted(&[], &mut disks);
        let said: Vec<bool> = disks.iter().map(|disk| disk.contradiction.is_some()).collect();
        assert_eq!(said, [false, true, true, true, false, false]);
        let deleted = disks[2].contradiction.as_deref();
        assert_eq!(deleted, Some("that file was deleted, and is still open"));
        // A QEMU that was daemonized has another directory than that in which it began.
        let below = |name: &str| {
            let names: PathBuf = directory.path().components().skip(2).collect();
            on(&Path::new("..").join(names).join(name))
        };
        let mut moved = ["open", "closed"].map(below);
        noted(&[], &mut moved);
        assert!(moved.iter().all(|disk| disk.contradiction.is_none()), "{moved:?}");
        assert_eq!(moved.map(|disk| disk.is_direct), [Some(false), None]);
        assert_eq!(
            disks[1].contradiction.as_deref(),
            Some("its process does not have that file open")
        );
    }

    #[test]
    fn what_qemu_writes_to_and_no_disk_names_is_said() {
        let directory = tempfile::tempdir_in("/var/tmp").expect("writable");
        let path = |name: &str| directory.path().join(name);
        let open = |name: &str| {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path(name))
                .expect("room")
        };
        let (overlay, log, vars) = (open("b.snap"), open("log.db"), open("vars.fd"));
        fs::write(path("a.img"), b"x").expect("room");
        let _base = File::open(path("a.img")).expect("there");
        let vars_word = format!("if=pflash,file={}", path("vars.fd").display());
        let mut disks = vec![on(&path("a.img"))];
        assert!(noted(&[&vars_word], &mut disks).is_empty(), "nothing is locked as an image is");
        // A file that is read as an image has these; one that is written to has byte 101 too.
        lock(&overlay, 100);
        lock(&log, 100);
        lock(&vars, 101);
        assert!(noted(&[&vars_word], &mut disks).is_empty(), "nothing else is written to");
        lock(&overlay, 101);
        let notes = noted(&[&vars_word], &mut disks);
        assert_eq!(notes, [UnnamedImage { path: path("b.snap"), is_direct: false }]);
        let shown = path("b.snap").display().to_string();
        let contradiction = disks[0].contradiction.as_deref().unwrap_or_default();
        assert!(
            contradiction.starts_with("that file is open for reading only, and QEMU writes to")
        );
        let mut disks = vec![Disk { is_read_only: true, ..on(&path("a.img")) }];
        noted(&[&vars_word], &mut disks);
        assert_eq!(disks[0].contradiction, None, "it is not meant to be written to");
        disks.push(Disk { storage: Storage::untold(), ..on(Path::new("")) });
        assert!(
            noted(&[&vars_word], &mut disks).is_empty(),
            "it may be the one whose file is unknown"
        );
        let other = noted(&[&vars_word, &shown], &mut [on(&path("a.img"))]);
        assert!(other.is_empty(), "the command line has it");
    }

    #[test]
    fn a_passed_through_device_is_a_disk_if_the_kernel_says_so() {
        let listed = tempfile::tempdir().expect("scratch");
        for (address, class) in [("0000:01:00.0", "0x010802\n"), ("0000:02:00.0", "0x020000\n")] {
            let directory = listed.path().join(address);
            fs::create_dir(&directory).expect("scratch is writable");
            fs::write(directory.join("class"), class).expect("scratch is writable");
        }
        let device =
            |address: &str| PassedThrough { id: Some("h".to_owned()), address: address.to_owned() };
        let devices = ["0000:01:00.0", "0000:02:00.0", "0000:03:00.0"].map(device);
        let disks = among(&devices, listed.path());
        assert_eq!(disks.len(), 1);
        assert_eq!(disks[0].storage, Storage::Passthrough { address: "0000:01:00.0".to_owned() });
    }
}
