//! The agent as `/init` of the micro image: the first process of a guest, and its only one.
//!
//! Whatever happens here ends in the guest's power being switched off: a guest that hangs would be
//! waited for, and its hogs with it.

use crate::{endpoint, modules, session, solo};
use anyhow::Context;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::{fs, panic};

/// What the host waits for when it only wants to know whether a stock kernel runs here at all.
const PROBE_LINE: &str = "vslice-probe: guest is up";

/// The word on the kernel command line that asks for it.
const PROBE_WORD: &str = "vslice.probe";

/// The word that asks for a measurement without a collector; its value is [`solo::Solo`]'s options.
const SOLO_KEY: &str = "vslice.solo";

/// The lines on the console between which the report stands.
const SOLO_BEGIN: &str = "vslice-solo: begin";
const SOLO_END: &str = "vslice-solo: end";

/// How long the devices and the collector may take to appear.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

/// What the agent, the drivers and the workload look into: where, and the type of file system.
const MOUNTS: [(&str, &str); 3] = [("/proc", "proc"), ("/sys", "sysfs"), ("/dev", "devtmpfs")];

/// Whether this process is a guest's init and not a program in a container, which may well be
/// process 1 too: the kernel starts init without a subcommand.
pub(crate) fn is_init(subcommand: Option<&OsStr>) -> bool {
    std::process::id() == 1 && subcommand.is_none_or(|word| word != "run" && word != "solo")
}

/// Does what an init of a guest does, and powers off. It returns only if the kernel refuses to.
pub(crate) fn run() {
    // Release builds abort on a panic, and the kernel panics when init ends: first this.
    panic::set_hook(Box::new(|info| {
        say(&format!("panic: {info}"));
        power_off();
    }));
    if let Err(error) = serve() {
        say(&format!("{error:#}"));
    }
    power_off();
}

fn serve() -> anyhow::Result<()> {
    for (target, file_system) in MOUNTS {
        mount_one(Path::new(target), file_system)
            .with_context(|| format!("cannot mount {file_system} on {target}"))?;
    }
    let command_line = fs::read_to_string("/proc/cmdline").context("cannot read /proc/cmdline")?;
    if wants_probe(&command_line) {
        // On a line of its own even if the kernel has left the cursor within one.
        print(&format!("\n{PROBE_LINE}\n"));
        return Ok(());
    }
    if let Some(value) = solo_options(&command_line) {
        modules::load_all(Path::new(modules::ORDER), |warning| say(&warning));
        return alone(value);
    }
    let endpoint = endpoint::from_command_line(&command_line)?;
    modules::load_all(Path::new(modules::ORDER), |warning| say(&warning));
    let socket = endpoint.connect(CONNECT_PATIENCE)?;
    // Nobody but the collector can end it: the kernel keeps signals from init.
    session::run(socket, &AtomicBool::new(false))?;
    Ok(())
}

/// Measures without a collector, and prints the report on the console.
fn alone(options: &str) -> anyhow::Result<()> {
    let solo = solo::Solo::from_kernel_parameter(options)
        .map_err(|error| anyhow::anyhow!("{SOLO_KEY}={options}: {error}"))?;
    // The kernel keeps signals from init, and a line in between would cost what is measured.
    let page = solo::run(&solo, &AtomicBool::new(false), &mut |_| {})?;
    print(&format!("\n{SOLO_BEGIN}\n{page}{SOLO_END}\n"));
    Ok(())
}

fn solo_options(command_line: &str) -> Option<&str> {
    command_line.split_ascii_whitespace().find_map(|word| {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        (key == SOLO_KEY).then_some(value)
    })
}

fn wants_probe(command_line: &str) -> bool {
    command_line
        .split_ascii_whitespace()
        .any(|word| word.split_once('=').map_or(word, |(key, _)| key) == PROBE_WORD)
}

fn mount_one(target: &Path, file_system: &str) -> Result<(), nix::Error> {
    // An image may come without the directory; if it cannot be made, the mount says so.
    let _ = fs::create_dir_all(target);
    match mount(Some(file_system), target, Some(file_system), MsFlags::empty(), None::<&str>) {
        // It is mounted already: a kernel with CONFIG_DEVTMPFS_MOUNT does that.
        Err(Errno::EBUSY) => Ok(()),
        result => result,
    }
}

fn power_off() {
    nix::unistd::sync();
    let Err(errno) = reboot(RebootMode::RB_POWER_OFF);
    say(&format!("cannot power off: {}", errno.desc()));
}

/// A line on the guest's console. Each takes the guest milliseconds: only what ends a run, or may
/// explain its end, is worth one.
fn say(text: &str) {
    print(&format!("vslice-agent: {text}\n"));
}

/// In one write, so that the kernel's own lines do not get into it. There is nobody to tell if the
/// console does not take it.
fn print(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_itself_asks_for_a_probe() {
        for (command_line, expected) in [
            ("console=ttyS0 vslice.probe quiet\n", true),
            ("vslice.probe=1", true),
            ("vslice.probes", false),
            ("xvslice.probe vslice.connect=unix:vslice.probe", false),
            ("", false),
        ] {
            assert_eq!(wants_probe(command_line), expected, "{command_line:?}");
        }
    }

    #[test]
    fn solo_has_options_or_none() {
        for (command_line, expected) in [
            ("quiet vslice.solo=duration=5s,json console=ttyS0\n", Some("duration=5s,json")),
            ("vslice.solo", Some("")),
            ("vslice.solos=1 xvslice.solo", None),
        ] {
            assert_eq!(solo_options(command_line), expected, "{command_line:?}");
        }
    }

    #[test]
    fn a_test_is_no_init() {
        assert!(!is_init(None));
    }
}
