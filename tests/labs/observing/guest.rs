//! A guest of the micro image, and its collector: this test.

use libtest_mimic::Failed;
use serde_json::to_vec;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vslice_spec::{ClockChoice, Engine, ObserveSpec, Pattern, ReaderSpec, WorkloadSpec};
use vslice_wire::{
    Done, Dropped, FRAME_BYTES_MAX, Frame, GuestFrame, HostFrame, Notice, Observed, ObservedCost,
    ObservedDevice, ObservedOthers, ObservedRequest, ObservedTask, Request,
};

/// The guest's disk.
pub(crate) const DISK_BYTES: u64 = 4 << 20;

/// For a guest to boot, and to say the next thing.
const PATIENCE: Duration = Duration::from_secs(120);

/// What QEMU needs beside its kernel. Messages to the port wait for nobody while the guest is slow.
const PORT: [&str; 4] =
    ["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=collector,name=vslice"];

/// So many reads of 4 KiB by one thread on vCPU1, and everything observed.
pub(crate) fn reads(count: u64) -> WorkloadSpec {
    WorkloadSpec {
        hogs: Vec::new(),
        reader: Some(ReaderSpec {
            target: "auto".to_owned(),
            create: false,
            block_bytes: 4096,
            total_bytes: count * 4096,
            duration_ms: None,
            pattern: Pattern::Seq,
            engine: Engine::Psync,
            depth: 1,
            vcpu: 1,
        }),
        observe: Some(ObserveSpec { devices: Vec::new(), slower_than_us: 0 }),
        housekeeping_vcpu: 0,
        clock: ClockChoice::MonotonicRaw,
        io_scheduler: None,
        lease_ms: 60_000,
        hog_gap_us: None,
    }
}

/// Everything that an agent said.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) requests: Vec<Request>,
    pub(crate) observed: Vec<ObservedRequest>,
    pub(crate) devices: Vec<ObservedDevice>,
    pub(crate) tasks: Vec<ObservedTask>,
    /// The last that was told.
    pub(crate) others: Vec<ObservedOthers>,
    pub(crate) lost: Vec<Dropped>,
    pub(crate) cost: Option<ObservedCost>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) done: Option<Done>,
}

/// A guest that runs; it dies with this.
pub(crate) struct Guest {
    qemu: Child,
    directory: TempDir,
    stream: UnixStream,
    told: Told,
}

impl Guest {
    /// Returns once its agent has said hello.
    pub(crate) fn boot(image: &Path, append: &str) -> Result<Guest, Failed> {
        let directory = tempfile::tempdir()?;
        let place = |name: &str| directory.path().join(name);
        File::create(place("disk"))?.write_all(&vec![1; usize::try_from(DISK_BYTES)?])?;
        let append = format!("console=ttyS0 quiet panic=-1 vslice.connect=virtio:vslice {append}");
        let mut qemu = Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "256"])
            .arg("-kernel")
            .arg(image.join("vmlinux"))
            .arg("-initrd")
            .arg(image.join("initramfs.cpio.gz"))
            .args(["-append", &append])
            .arg("-serial")
            .arg(format!("file:{}", place("console").display()))
            .arg("-drive")
            .arg(format!("if=none,id=disk,format=raw,file={}", place("disk").display()))
            .args(["-device", "virtio-blk-pci,drive=disk,num-queues=1", "-chardev"])
            .arg(format!("socket,id=collector,server=on,wait=off,path={}", place("port").display()))
            .args(PORT)
            .stdin(Stdio::null())
            .spawn()?;
        let begun = Instant::now();
        let stream = loop {
            match UnixStream::connect(place("port")) {
                Ok(stream) => break stream,
                Err(error) => {
                    if qemu.try_wait()?.is_some() || begun.elapsed() > PATIENCE {
                        let _ = qemu.kill();
                        return Err(format!("no port of QEMU: {error}").into());
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut guest = Guest { qemu, directory, stream, told: Told::default() };
        match guest.next_frame()? {
            GuestFrame::Hello(_) => Ok(guest),
            frame => Err(format!("not hello: {frame:?}").into()),
        }
    }

    /// Until the agent has prepared it.
    pub(crate) fn plan(&mut self, spec: &WorkloadSpec) -> Result<(), Failed> {
        self.say(&HostFrame::Plan(to_vec(spec)?))?;
        loop {
            match self.next_frame()? {
                GuestFrame::Ready(_) => return Ok(()),
                frame => self.keep(frame),
            }
        }
    }

    pub(crate) fn start(&mut self) -> Result<(), Failed> {
        self.say(&HostFrame::Start)
    }

    /// Everything from the beginning.
    pub(crate) fn listen_to_done(mut self) -> Result<Told, Failed> {
        while self.told.done.is_none() {
            let frame = self.next_frame()?;
            self.keep(frame);
        }
        self.say(&HostFrame::Bye)?;
        Ok(std::mem::take(&mut self.told))
    }

    fn keep(&mut self, frame: GuestFrame) {
        let told = &mut self.told;
        match frame {
            GuestFrame::Requests(requests) => told.requests.extend(requests),
            GuestFrame::Observed(Observed::Requests(block)) => told.observed.extend(block.requests),
            GuestFrame::Observed(Observed::Devices(devices)) => told.devices.extend(devices),
            GuestFrame::Observed(Observed::Tasks(tasks)) => told.tasks.extend(tasks),
            GuestFrame::Observed(Observed::Others(others)) => told.others = others,
            GuestFrame::Observed(Observed::Lost(lost)) => told.lost.push(lost),
            GuestFrame::Observed(Observed::Cost(cost)) => told.cost = Some(cost),
            GuestFrame::Notice(notice) => told.notices.push(notice),
            GuestFrame::Done(done) => told.done = Some(done),
            _ => {}
        }
    }

    fn say(&mut self, frame: &HostFrame) -> Result<(), Failed> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes)?;
        Ok(self.stream.write_all(&bytes)?)
    }

    fn next_frame(&mut self) -> Result<GuestFrame, Failed> {
        let mut length = [0; 4];
        self.read(&mut length)?;
        let length_bytes = usize::try_from(u32::from_le_bytes(length))?;
        if !(1..=FRAME_BYTES_MAX).contains(&length_bytes) {
            return Err(format!("a frame of {length_bytes} bytes").into());
        }
        let mut body = vec![0; length_bytes];
        self.read(&mut body)?;
        Ok(GuestFrame::decode_body(body[0], &body[1..])?)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Failed> {
        self.stream.read_exact(bytes).map_err(|error| {
            let console = std::fs::read(self.directory.path().join("console")).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            let tail: Vec<&str> = console.lines().rev().take(5).collect();
            let what = match error.kind() {
                ErrorKind::WouldBlock => "the agent said nothing more".to_owned(),
                _ => error.to_string(),
            };
            format!("{what}; the console's last lines, from the end: {tail:#?}").into()
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have powered itself off.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
