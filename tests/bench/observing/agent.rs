//! A collector for the agent, which counts the requests that it is told of.

use super::rivals::{Recorded, Setting};
use crate::rivals::tool::Tool;
use anyhow::{Context, bail};
use std::io::{BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;
use vslice_spec::{ClockChoice, ObserveSpec, WorkloadSpec};
use vslice_wire::{FRAME_BYTES_MAX, Frame, GuestFrame, HostFrame, Observed};

/// For the agent to say the next thing. Never reached unless it hangs.
const DEADLINE: Duration = Duration::from_secs(20);

/// An agent that observes.
pub(crate) struct Observer {
    pub(crate) tool: Tool,
    stream: UnixStream,
    /// Counts until the agent says that it is done.
    counting: JoinHandle<anyhow::Result<Recorded>>,
}

impl Observer {
    /// Returns once the agent was told to start.
    pub(crate) fn start(setting: &Setting<'_>, slower_than_us: u64) -> anyhow::Result<Observer> {
        let socket = setting.scratch.join("collector.sock");
        // That of the round before.
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)?;
        listener.set_nonblocking(true)?;
        let mut command = Command::new(setting.agent);
        command.args(["run", "--connect", &format!("unix:{}", socket.display())]);
        let mut tool = Tool::start(&command, &setting.scratch.join("agent.said"))?;
        let mut met = None;
        tool.wait_until("it connected", || {
            met = listener.accept().ok();
            Ok(met.is_some())
        })?;
        let (mut stream, _) = met.context("it connected")?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut told = Told(BufReader::new(stream.try_clone()?));
        let GuestFrame::Hello(_) = told.next_frame()? else { bail!("no hello") };
        say(&mut stream, &HostFrame::Plan(plan(setting, slower_than_us)?))?;
        loop {
            match told.next_frame()? {
                GuestFrame::Ready(_) => break,
                GuestFrame::Notice(notice) => bail!("the agent says: {}", notice.text),
                _ => {}
            }
        }
        say(&mut stream, &HostFrame::Start)?;
        let counting = std::thread::spawn(move || told.count());
        Ok(Observer { tool, stream, counting })
    }

    pub(crate) fn stop(mut self) -> anyhow::Result<Recorded> {
        say(&mut self.stream, &HostFrame::Stop)?;
        let recorded =
            self.counting.join().map_err(|_| anyhow::anyhow!("the counting panicked"))??;
        say(&mut self.stream, &HostFrame::Bye)?;
        Ok(recorded)
    }
}

fn plan(setting: &Setting<'_>, slower_than_us: u64) -> anyhow::Result<Vec<u8>> {
    let devices = vec![setting.device.to_owned()];
    Ok(serde_json::to_vec(&WorkloadSpec {
        hogs: Vec::new(),
        reader: None,
        observe: Some(ObserveSpec { devices, slower_than_us }),
        housekeeping_vcpu: u16::try_from(setting.places.others.0)?,
        clock: ClockChoice::MonotonicRaw,
        io_scheduler: None,
        lease_ms: 60_000,
        hog_gap_us: None,
    })?)
}

fn say(stream: &mut UnixStream, frame: &HostFrame) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes)?;
    stream.write_all(&bytes)?;
    Ok(())
}

/// What an agent says.
struct Told(BufReader<UnixStream>);

impl Told {
    fn next_frame(&mut self) -> anyhow::Result<GuestFrame> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).context("the agent went away")?;
        let length_bytes = usize::try_from(u32::from_le_bytes(length))?;
        anyhow::ensure!(length_bytes <= FRAME_BYTES_MAX, "a frame of {length_bytes} bytes");
        let mut body = vec![0; length_bytes];
        self.0.read_exact(&mut body)?;
        let (&kind, payload) = body.split_first().context("an empty frame")?;
        Ok(GuestFrame::decode_body(kind, payload)?)
    }

    /// Until the agent says that it is done.
    fn count(mut self) -> anyhow::Result<Recorded> {
        let mut recorded = Recorded::default();
        // Of those that are not told one by one the agent tells a total, each time from the beginning.
        let mut others_count = 0;
        loop {
            match self.next_frame()? {
                GuestFrame::Observed(Observed::Requests(block)) => {
                    recorded.requests_count += block.requests.len() as u64;
                }
                GuestFrame::Observed(Observed::Others(others)) => {
                    others_count = others.iter().map(|of| of.count).sum();
                }
                GuestFrame::Observed(Observed::Lost(lost)) => recorded.lost_count += lost.count,
                GuestFrame::Done(_) => {
                    recorded.requests_count += others_count;
                    return Ok(recorded);
                }
                _ => {}
            }
        }
    }
}
