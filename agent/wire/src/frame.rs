//! The values that the two sides exchange.

use crate::observed::Observed;

/// A guest's own clock reading: TSC ticks or nanoseconds, as `Ready` said. It has no meaning on
/// the host until a clock map has turned it into a host time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GuestTicks(pub u64);

/// Which clock a guest stamps with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockKind {
    /// The time stamp counter, read by `rdtsc`.
    Tsc,
    /// `CLOCK_MONOTONIC_RAW`, in nanoseconds.
    MonotonicRaw,
}

/// The first frame from a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The sender's [`PROTOCOL_VERSION`](crate::PROTOCOL_VERSION).
    pub protocol_version: u16,
    /// The agent's own version, for the report.
    pub agent_version: String,
    /// The guest kernel's release, as `uname -r` prints it.
    pub kernel_release: String,
    /// All vCPUs that the guest has online have numbers below this.
    pub vcpu_count: u16,
    /// Whether CPUID says that the TSC is invariant.
    pub tsc_invariant: bool,
}

/// The guest has prepared the plan and waits for `Start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The clock of every [`GuestTicks`] on this connection from here on.
    pub clock: ClockKind,
    /// What the reader reads: a path, empty when the plan has no reader.
    pub target: String,
    /// Size of the target in bytes, 0 when the plan has no reader.
    pub target_bytes: u64,
    /// The guest kernel's own clock source (`current_clocksource` in sysfs); empty if that cannot be read.
    pub clock_source: String,
    /// The whole disk of the guest that the target is or lies on, where the guest's sysfs knows one.
    pub disk: Option<GuestDisk>,
}

/// A whole disk as a guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestDisk {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The byte of it at which the target begins; `None` where the target has no one place on it,
    /// as a file has none.
    pub target_offset_bytes: Option<u64>,
    /// The I/O scheduler of its queue; empty if that cannot be read.
    pub io_scheduler: String,
}

/// A clock probe from the collector; each one renews the agent's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// Comes back in the [`Pong`].
    pub id: u64,
    /// The vCPU to stamp on; `None` leaves the agent where it is, so that nothing is disturbed.
    /// Between `Start` and `Done` the agent is back on its housekeeping vCPU after each ping; else
    /// it stays on the one that it was last asked to, so that of several pings to one vCPU only
    /// the first pays for the way there.
    pub vcpu: Option<u16>,
}

/// The answer to a [`Ping`], stamped on arrival and just before it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// The id of the [`Ping`] that this answers.
    pub id: u64,
    /// The vCPU that stamped.
    pub vcpu: u16,
    /// When the ping had been received.
    pub received: GuestTicks,
    /// When this pong was about to be sent.
    pub sent: GuestTicks,
}

/// One request of a reader, as the guest saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Counts from 0 in order of submission; an index is never used twice in a run.
    pub index: u64,
    /// Just before the request was handed to the guest's kernel.
    pub submitted: GuestTicks,
    /// Just after its completion was seen.
    pub completed: GuestTicks,
    /// The vCPU that the submitting thread was on.
    pub vcpu_submitted: u16,
    /// The vCPU that the thread was on when it saw the completion.
    pub vcpu_completed: u16,
    /// Bytes read (0 or more), or the negated errno.
    pub result: i32,
}

/// Requests that were made but not recorded because the ring was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// How many.
    pub count: u64,
    /// When the first of them was submitted.
    pub first: GuestTicks,
    /// When the last of them completed.
    pub last: GuestTicks,
}

/// What the hypervisor told a guest of its host's clock: KVM's device `KVM virtual PTP` (linux:
/// drivers/ptp/ptp_kvm_common.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostTime {
    /// The vCPU that asked.
    pub vcpu: u16,
    /// Just before it asked.
    pub before: GuestTicks,
    /// What it was told: the host's `CLOCK_REALTIME`, in nanoseconds.
    pub realtime_ns: u64,
    /// Just after it was told.
    pub after: GuestTicks,
}

/// A sign of life of one hog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HogCount {
    /// The vCPU that the hog is pinned to.
    pub vcpu: u16,
    /// How often its loop has counted so far.
    pub count: u64,
}

/// A time in which a hog did not look at its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HogGap {
    /// The last look before.
    pub start: GuestTicks,
    /// The first one after.
    pub end: GuestTicks,
}

/// Gaps of one hog, in order of time and after all that it told before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HogGaps {
    /// The vCPU that the hog is pinned to.
    pub vcpu: u16,
    /// At most [`HOG_GAPS_MAX`](crate::HOG_GAPS_MAX).
    pub gaps: Vec<HogGap>,
}

/// Why a guest's part of the run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoneReason {
    /// The reader has read all that the plan asked for, or its time was up.
    Completed,
    /// The collector said `Stop`.
    Stopped,
    /// It failed; a [`Notice`] before this frame says why.
    Failed,
}

/// The workload has ended; every request of it was sent before this frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Why.
    pub reason: DoneReason,
    /// Requests made, the dropped ones included.
    pub requests: u64,
    /// Requests that were made but not recorded.
    pub dropped: u64,
}

/// How bad a [`Notice`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The run goes on, but its reader should know.
    Warning,
    /// The run cannot go on.
    Error,
}

/// A sentence from the guest for the person who reads the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How bad it is.
    pub severity: Severity,
    /// The sentence; the receiver replaces what a terminal could obey.
    pub text: String,
}

impl Notice {
    /// A notice whose text is cut, at a character, to what a frame may carry.
    #[must_use]
    pub fn new(severity: Severity, text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(crate::NOTICE_BYTES_MAX));
        Self { severity, text }
    }
}

/// What a guest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestFrame {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Ready`].
    Ready(Ready),
    /// See [`Pong`].
    Pong(Pong),
    /// See [`HostTime`].
    HostTime(HostTime),
    /// Up to [`BLOCK_REQUESTS_MAX`](crate::BLOCK_REQUESTS_MAX) requests in order of completion.
    Requests(Vec<Request>),
    /// See [`Dropped`].
    Dropped(Dropped),
    /// See [`HogCount`]; one for each hog, at most [`HOGS_MAX`](crate::HOGS_MAX).
    Hogs(Vec<HogCount>),
    /// See [`HogGaps`].
    HogGaps(HogGaps),
    /// See [`Observed`].
    Observed(Observed),
    /// See [`Notice`].
    Notice(Notice),
    /// See [`Done`].
    Done(Done),
}

/// What a collector says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostFrame {
    /// The workload as JSON: `vslice_spec::WorkloadSpec`, at most
    /// [`PLAN_BYTES_MAX`](crate::PLAN_BYTES_MAX).
    Plan(Vec<u8>),
    /// See [`Ping`].
    Ping(Ping),
    /// Start the hogs and the reader.
    Start,
    /// Stop them; the guest answers with what is left and `Done`.
    Stop,
    /// Nothing more is wanted: end, and as init power the guest off.
    Bye,
}
