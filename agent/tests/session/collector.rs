//! A collector that does what a test says, and the agent that it talks to: a real process.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use vslice_spec::{ClockChoice, Engine, Pattern, ReaderSpec, WorkloadSpec};
use vslice_wire::{
    Deframer, Done, Dropped, Frame, GuestFrame, Hello, HogCount, HogGaps, HostFrame, Notice,
    Observed, Ping, Pong, Ready, Request,
};
use vslice_workload::clock::Clock;

/// No test waits this long unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(90);

/// The block size of every reader here.
pub(crate) const BLOCK_BYTES: u32 = 4096;

/// One collector, one agent, and a directory on a disk for them.
pub(crate) struct Pair {
    pub(crate) directory: TempDir,
    agent: Child,
    stream: Option<UnixStream>,
    deframer: Deframer<GuestFrame>,
    /// Read and not taken apart yet.
    unread: Vec<u8>,
}

/// Everything that an agent said from the start to `Done`.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) requests: Vec<Request>,
    /// Each loss, with the number of requests that were sent before it.
    pub(crate) dropped: Vec<(usize, Dropped)>,
    pub(crate) hogs: Vec<Vec<HogCount>>,
    pub(crate) hog_gaps: Vec<HogGaps>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) pongs: Vec<Pong>,
    pub(crate) observed: Vec<Observed>,
    pub(crate) done: Option<Done>,
}

impl Told {
    pub(crate) fn done(&self) -> Done {
        self.done.expect("the agent said Done")
    }

    /// Every request of one in flight was told once, in order, or was counted in the loss that
    /// stands in its place.
    pub(crate) fn assert_complete(&self) {
        let count = |length| u64::try_from(length).expect("fewer than 2^64");
        let dropped_count: u64 = self.dropped.iter().map(|(_, dropped)| dropped.count).sum();
        assert_eq!(dropped_count, self.done().dropped);
        assert_eq!(count(self.requests.len()) + dropped_count, self.done().requests);
        assert!(self.requests.is_sorted_by(|one, next| one.index < next.index));
        assert!(self.requests.is_sorted_by(|one, next| one.completed <= next.submitted));
        assert!(self.requests.iter().all(|request| request.submitted <= request.completed));
        for (place, dropped) in &self.dropped {
            let (before, after) = self.requests.split_at(*place);
            assert!(before.last().is_none_or(|last| last.completed <= dropped.first));
            assert!(after.first().is_none_or(|next| dropped.last <= next.submitted));
        }
    }
}

impl Pair {
    /// An agent that has connected and said hello.
    pub(crate) fn connect() -> (Self, Hello) {
        Self::connect_by(&[])
    }

    /// The same, started by a program that ends by becoming it.
    pub(crate) fn connect_by(starter: &[&str]) -> (Self, Hello) {
        // Not in /tmp, which may lie in memory: O_DIRECT needs a disk.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let socket = directory.path().join("collector.sock");
        let listener = UnixListener::bind(&socket).expect("a fresh path");
        let endpoint = format!("unix:{}", socket.display());
        let agent = [env!("CARGO_BIN_EXE_vslice-agent"), "run", "--connect", &endpoint];
        let words = [starter, &agent].concat();
        let agent = Command::new(words[0])
            .args(&words[1..])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the agent was built");
        let (stream, _) = listener.accept().expect("the agent connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let deframer = Deframer::new();
        let mut pair =
            Self { directory, agent, stream: Some(stream), deframer, unread: Vec::new() };
        match pair.next_frame() {
            Some(GuestFrame::Hello(hello)) => (pair, hello),
            frame => panic!("not Hello: {frame:?}"),
        }
    }

    /// An agent that has prepared the spec and waits for the start.
    pub(crate) fn prepare(change: impl FnOnce(&mut WorkloadSpec)) -> (Self, Ready) {
        let (mut pair, _) = Self::connect();
        let mut spec = pair.spec();
        change(&mut spec);
        pair.plan(&spec);
        let ready = pair.listen_to_ready();
        (pair, ready)
    }

    /// An agent that waits for the start of so many requests, each of which takes no time: its
    /// target was truncated after it had been checked, so that every read is a result of 0 bytes.
    pub(crate) fn prepare_flood(requests: u32) -> Self {
        const TARGET_BYTES: usize = 64 * 1024;
        let (mut pair, _) = Self::connect();
        let mut spec = pair.spec();
        let reader = spec.reader.as_mut().expect("it has a reader");
        reader.create = false;
        reader.total_bytes = u64::from(requests) * u64::from(BLOCK_BYTES);
        let mut target = File::create(pair.target()).expect("a fresh directory");
        target.write_all(&[1; TARGET_BYTES]).expect("room on the disk");
        target.sync_all().expect("a disk");
        pair.plan(&spec);
        pair.listen_to_ready();
        target.set_len(0).expect("our own file");
        pair
    }

    /// Asks the agent to end, as a service manager would.
    pub(crate) fn terminate(&self) {
        let agent = Pid::from_raw(self.agent.id().cast_signed());
        kill(agent, Signal::SIGTERM).expect("our own child");
    }

    pub(crate) fn listen_to_ready(&mut self) -> Ready {
        match self.next_frame() {
            Some(GuestFrame::Ready(ready)) => ready,
            frame => panic!("not Ready: {frame:?}"),
        }
    }

    /// 256 reads of a fresh file on the last vCPU, the control on the first.
    pub(crate) fn spec(&self) -> WorkloadSpec {
        WorkloadSpec {
            hogs: Vec::new(),
            reader: Some(ReaderSpec {
                target: self.target().to_str().expect("a plain path").to_owned(),
                create: true,
                block_bytes: BLOCK_BYTES,
                total_bytes: 256 * u64::from(BLOCK_BYTES),
                duration_ms: None,
                pattern: Pattern::Seq,
                engine: Engine::Psync,
                depth: 1,
                vcpu: last_vcpu(),
            }),
            housekeeping_vcpu: 0,
            clock: ClockChoice::MonotonicRaw,
            io_scheduler: None,
            lease_ms: 60_000,
            observe: None,
            hog_gap_us: None,
        }
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    pub(crate) fn say(&mut self, frame: &HostFrame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).expect("within the bounds");
        self.say_bytes(&bytes);
    }

    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) {
        self.stream.as_mut().expect("connected").write_all(bytes).expect("the agent reads");
    }

    pub(crate) fn plan(&mut self, spec: &WorkloadSpec) {
        self.say(&HostFrame::Plan(serde_json::to_vec(spec).expect("a spec is plain")));
    }

    /// The next frame; `None` when the agent has closed the connection.
    pub(crate) fn next_frame(&mut self) -> Option<GuestFrame> {
        loop {
            let mut input = &self.unread[..];
            let frame = self.deframer.next_frame(&mut input).expect("the agent speaks plainly");
            let left = input.to_vec();
            self.unread = left;
            if frame.is_some() {
                return frame;
            }
            let mut buffer = [0; 16 * 1024];
            let stream = self.stream.as_mut().expect("connected");
            match stream.read(&mut buffer).expect("the agent says something within the patience") {
                0 => return None,
                count => self.unread.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// Pings and returns the pong; nothing else may come before it.
    pub(crate) fn ping(&mut self, id: u64, vcpu: Option<u16>) -> Pong {
        self.say(&HostFrame::Ping(Ping { id, vcpu }));
        match self.next_frame() {
            Some(GuestFrame::Pong(pong)) => pong,
            frame => panic!("not Pong: {frame:?}"),
        }
    }

    /// Adds the next frame to what was told. Whether there is more to come.
    pub(crate) fn listen(&mut self, told: &mut Told) -> bool {
        match self.next_frame().expect("the agent says Done before it goes") {
            GuestFrame::Requests(requests) => told.requests.extend(requests),
            GuestFrame::Dropped(dropped) => told.dropped.push((told.requests.len(), dropped)),
            GuestFrame::Hogs(hogs) => told.hogs.push(hogs),
            GuestFrame::HogGaps(gaps) => told.hog_gaps.push(gaps),
            GuestFrame::Notice(notice) => told.notices.push(notice),
            GuestFrame::Pong(pong) => told.pongs.push(pong),
            GuestFrame::Observed(observed) => told.observed.push(observed),
            GuestFrame::Done(done) => told.done = Some(done),
            frame => panic!("not while a load runs: {frame:?}"),
        }
        told.done.is_none()
    }

    /// Until the agent says what observing costs, which it does once a second: it observes.
    pub(crate) fn listen_to_cost(&mut self, told: &mut Told) {
        let is_cost = |observed: &Observed| matches!(observed, Observed::Cost(_));
        while !told.observed.iter().any(is_cost) {
            assert!(self.listen(told), "it was to run for longer");
        }
    }

    /// What is mounted where the agent looks.
    pub(crate) fn mounts(&self) -> String {
        fs::read_to_string(self.proc().join("mounts")).expect("the agent lives")
    }

    pub(crate) fn listen_to_done(&mut self) -> Told {
        let mut told = Told::default();
        while self.listen(&mut told) {}
        told
    }

    /// Stops the agent, all its threads, for a while. Between the two readings of the clock that are
    /// returned none of them ran, however late this thread itself is.
    pub(crate) fn pause(&self, time: Duration, clock: Clock) -> (u64, u64) {
        self.pause_while(clock, || std::thread::sleep(time))
    }

    /// The same for as long as `work` takes.
    pub(crate) fn pause_while(&self, clock: Clock, work: impl FnOnce()) -> (u64, u64) {
        let agent = Pid::from_raw(self.agent.id().cast_signed());
        kill(agent, Signal::SIGSTOP).expect("our own child");
        until("the agent stands still", || self.is_stopped().then_some(()));
        let from = clock.now();
        work();
        let to = clock.now();
        kill(agent, Signal::SIGCONT).expect("our own child");
        (from, to)
    }

    /// A signal stops each thread when that thread comes to it.
    fn is_stopped(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.agent.id()));
        tasks.expect("our own child").flatten().all(|task| {
            // The state stands behind the name, which is in brackets (proc_pid_stat(5)).
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        })
    }

    /// The collector is gone, as after SIGKILL.
    pub(crate) fn hang_up(&mut self) {
        self.stream = None;
    }

    /// Waits for the agent's end; its status and what it said on standard error.
    pub(crate) fn wait(&mut self) -> (ExitStatus, String) {
        let status = until("the agent ends", || self.agent.try_wait().expect("our child"));
        let mut said = String::new();
        let mut stderr = self.agent.stderr.take().expect("piped");
        stderr.read_to_string(&mut said).expect("text");
        (status, said)
    }

    /// Waits until the agent has no thread of this name any more.
    pub(crate) fn wait_for_end_of_thread(&self, name: &str) {
        until("the thread ends", || {
            (!self.thread_names().contains(&name.to_owned())).then_some(())
        });
    }

    pub(crate) fn thread_names(&self) -> Vec<String> {
        fs::read_dir(self.proc().join("task"))
            .expect("the agent lives")
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .map(|name| name.trim_end().to_owned())
            .collect()
    }

    /// The most memory that the agent ever had resident.
    pub(crate) fn resident_bytes_max(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// The same without what is resident now of its file and its libraries: these are larger here than
    /// the static, optimised file of a guest, which has 3 MiB at most.
    pub(crate) fn own_bytes_max(&self) -> u64 {
        self.resident_bytes_max().saturating_sub(self.status_bytes("RssFile:"))
    }

    fn status_bytes(&self, row: &str) -> u64 {
        let status = fs::read_to_string(self.proc().join("status")).expect("the agent lives");
        let line = status.lines().find(|line| line.starts_with(row)).expect("a user process");
        let kib = line.split_ascii_whitespace().nth(1).expect("a row: N kB");
        kib.parse::<u64>().expect("a number") * 1024
    }

    fn proc(&self) -> PathBuf {
        Path::new("/proc").join(self.agent.id().to_string())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

/// Asks until there is an answer.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// On a machine of one vCPU, the reader shares it with the control.
pub(crate) fn last_vcpu() -> u16 {
    let count = thread::available_parallelism().expect("Linux tells").get();
    u16::try_from(count - 1).expect("few vCPUs")
}
