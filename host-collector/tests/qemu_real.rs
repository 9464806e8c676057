//! QEMU's big lock and its devices in the QEMU of this host, and the lock in those that tests/newer-tools gets.
//!
//! The lock's address is compared with two witnesses that know nothing of how it was found: QEMU's
//! own trace of its mutexes, which prints address and source line, and the kernel, which shows on
//! which futex a thread sleeps (`/proc/PID/task/TID/syscall`). Where QEMU is missing, or one of the
//! witnesses, a test is reported as ignored and says why.
//!
//! Tests wait for what they expect to see; the deadline only keeps a broken one from hanging.

#[path = "support/newer.rs"]
mod newer;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};
use vslice_core::units::{PcpuId, Tid, VcpuId};
use vslice_host::bql::{self, BqlError};
use vslice_host::disk::{Bus, DirectSource, DiskBus};
use vslice_host::pin::{affinity, set_affinity};
use vslice_host::qga::{Qga, QgaError};
use vslice_host::qmp::{Qmp, QmpError};
use vslice_host::{threads, vm};
use vslice_lab::tools;
use vslice_trace::lock::Bql;
use vslice_trace::thread::ThreadRole;
use vslice_trace::vmm::{Accelerator, Vmm};

const DEADLINE: Duration = Duration::from_secs(60);
const NAP: Duration = Duration::from_millis(20);

type Outcome = Result<(), Failed>;
type Test = fn() -> Outcome;
type TestOfQemu = fn(&Path) -> Outcome;

fn main() {
    let mut arguments = Arguments::from_args();
    // Each QEMU keeps a pCPU busy.
    arguments.test_threads = Some(1);
    let tests: [(&str, Test, Option<String>); 5] = [
        ("a_program_with_fixed_addresses_has_them", fixed_addresses_agree, no_fixed_program()),
        ("a_vm_is_found_with_its_threads_and_disks", a_vm_is_found, no_qemu()),
        ("a_vm_whose_threads_have_no_names_is_found", a_nameless_vm_is_found, no_qemu()),
        ("an_agent_says_what_it_may_do", an_agent_answers, no_agent()),
        ("the_monitor_names_devices_to_one_client_at_a_time", the_monitor_answers, no_qemu()),
    ];
    let trial = |(name, test, missing): (&str, Test, Option<String>)| match missing {
        None => Trial::test(name, test),
        Some(reason) => Trial::test(name, test).with_kind(reason).with_ignored_flag(true),
    };
    let trials = tests.into_iter().map(trial).chain(trials_of_locks());
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// The tests that are about the lock and about names of threads, with each QEMU that there is.
fn trials_of_locks() -> Vec<Trial> {
    let tests: [(&str, TestOfQemu, Option<String>); 5] = [
        ("qemu_traces_the_lock_at_the_address_that_was_found", qemu_is_a_witness, None),
        ("a_vcpu_sleeps_on_the_address_that_was_found", the_kernel_is_a_witness, no_syscalls()),
        ("a_lock_is_found_in_another_pid_namespace", a_container_is_no_obstacle, no_unshare()),
        ("the_variables_are_where_the_kernel_maps_them", the_mappings_agree, None),
        ("iothreads_with_long_ids_are_told_apart", long_ids_are_told_apart, None),
    ];
    let installed = ("installed", installed());
    let newer = newer::QEMUS.map(|name| (name, newer::tool(&format!("{name}/{}", tools::QEMU))));
    let qemus = [installed].into_iter().chain(newer);
    let trials = qemus.flat_map(|(label, qemu)| {
        tests.clone().map(|(name, test, missing)| {
            let name = format!("{name}/{label}");
            match (qemu.clone(), missing) {
                (Ok(qemu), None) => Trial::test(name, move || test(&qemu)),
                (Err(reason), _) | (_, Some(reason)) => {
                    Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true)
                }
            }
        })
    });
    trials.collect()
}

fn installed() -> Result<PathBuf, String> {
    let missing = format!("no {} on the path: apt-get install qemu-system-x86", tools::QEMU);
    tools::find(tools::QEMU).ok_or(missing)
}

fn no_qemu() -> Option<String> {
    installed().err()
}

/// Debian's qemu-ga, which runs on a host as it does in a guest. It is not installed for this: it is a
/// service that hosts have no use for.
fn no_agent() -> Option<String> {
    let missing = "no qemu-ga on the path or in $VSLICE_TOOLS: apt-get download qemu-guest-agent, and \
                   dpkg -x";
    tools::find("qemu-ga").is_none().then(|| missing.to_owned())
}

fn no_syscalls() -> Option<String> {
    let error = fs::read("/proc/self/syscall").err();
    error.map(|error| format!("/proc/self/syscall: {error}"))
}

/// Whether another pid namespace can be made here, by trying it.
fn no_unshare() -> Option<String> {
    let mut tried = Command::new("unshare");
    let status = tried.args(["--pid", "--fork", "true"]).stderr(Stdio::null()).status();
    let failed = !status.is_ok_and(|status| status.success());
    failed.then(|| "no pid namespace can be made here, or unshare is missing".into())
}

const TRACE_EVENT: &str = "qemu_mutex_locked";

/// A guest of 64 KiB: a BIOS that does nothing but read the port of the real-time clock, each time
/// under the big lock. Its first instruction is 16 bytes below 4 GiB (Intel SDM volume 3, "First
/// Instruction Executed").
fn port_reader() -> Vec<u8> {
    let mut rom = vec![0; 64 << 10];
    // mov $0x71,%dx; 1: in (%dx),%al; jmp 1b
    let code = [0xba, 0x71, 0x00, 0xec, 0xeb, 0xfd];
    let at = rom.len() - 16;
    rom[at..at + code.len()].copy_from_slice(&code);
    rom
}

/// A QEMU that ends with the test.
struct Qemu {
    directory: tempfile::TempDir,
    child: Child,
    /// The process of QEMU, where `child` is only its parent.
    pid: Tid,
}

impl Qemu {
    fn start(before: &[&str], args: &[&str]) -> Result<Qemu, Failed> {
        Qemu::start_this(&installed()?, before, args)
    }

    fn start_this(qemu: &Path, before: &[&str], args: &[&str]) -> Result<Qemu, Failed> {
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("rom"), port_reader())?;
        let mut words = before.iter().map(PathBuf::from).chain([qemu.to_owned()]);
        let child = Command::new(words.next().ok_or("a program")?)
            .args(words)
            .args(["-name", "test,debug-threads=on", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-m", "16M", "-accel", "tcg,thread=multi"])
            .args(["-chardev", "socket,id=qmp,path=qmp,server=on,wait=off"])
            .args(["-mon", "chardev=qmp,mode=control"])
            .args(args)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .spawn()?;
        let mut qemu = Qemu { pid: Tid(child.id()), directory, child };
        qemu.wait_for("its monitor socket", |qemu| Ok(qemu.qmp_path().exists().then_some(())))?;
        Ok(qemu)
    }

    fn qmp_path(&self) -> PathBuf {
        self.directory.path().join("qmp")
    }

    fn wait_for<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&Qemu) -> Result<Option<T>, Failed>,
    ) -> Result<T, Failed> {
        let start = Instant::now();
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("QEMU has ended ({status}) before {what}").into());
            }
            if start.elapsed() > DEADLINE {
                return Err(format!("no sign of {what} within {DEADLINE:?}").into());
            }
            thread::sleep(NAP);
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn check(condition: bool, what: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(what().into()) }
}

fn file_of(pid: Tid, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}

/// The only mutex that QEMU's util/main-loop.c takes is the big lock, after each wait for events
/// (`os_host_main_loop_wait`).
fn qemu_is_a_witness(program: &Path) -> Outcome {
    let events = Command::new(program).args(["-trace", "help"]).output()?;
    let can = String::from_utf8_lossy(&events.stdout).lines().any(|line| line == TRACE_EVENT);
    check(can, || format!("this QEMU cannot trace {TRACE_EVENT}"))?;
    let trace = format!("enable={TRACE_EVENT}");
    let args = ["-machine", "none", "-S", "-trace", &trace, "-D", "trace.log"];
    let mut qemu = Qemu::start_this(program, &[], &args)?;
    // Something for the main loop to wake up for.
    drop(Qmp::connect(&qemu.qmp_path())?);
    let traced = qemu.wait_for("a trace of the main loop", |qemu| {
        let log = fs::read_to_string(qemu.directory.path().join("trace.log"))?;
        let line = log.lines().find(|line| line.contains("util/main-loop.c:"));
        // qemu_mutex_locked taken mutex 0x55d12b615b40 (../../util/main-loop.c:303)
        Ok(line
            .and_then(|line| line.split_once("mutex 0x")?.1.split_once(' '))
            .and_then(|(digits, _)| u64::from_str_radix(digits, 16).ok()))
    })?;
    let bql = bql::locate(qemu.pid)?;
    check(bql.address == traced, || format!("QEMU traces {traced:#x}, found was {bql:x?}"))
}

/// Asks QEMU for its longest answer again and again, until it is dropped.
struct Storm {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Result<(), QmpError>>>,
}

impl Storm {
    fn start(qemu: &Qemu) -> Result<Storm, Failed> {
        let mut qmp = Qmp::connect(&qemu.qmp_path())?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let ask = move || {
            while !stopped.load(Ordering::Relaxed) {
                qmp.execute("query-qmp-schema", json!({}))?;
            }
            Ok(())
        };
        Ok(Storm { stop, thread: Some(thread::spawn(ask)) })
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The address of the mutex that a thread sleeps on: futex(2) is system call 202 on x86-64, 0x80 is
/// `FUTEX_WAIT_PRIVATE`, and glibc's mutexes wait while their word is 2.
fn mutex_slept_on(pid: Tid, tid: Tid) -> Option<u64> {
    let path = file_of(pid, &format!("task/{tid}/syscall"));
    let text = fs::read_to_string(path).ok()?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let ["202", address, "0x80", "0x2", ..] = words[..] else { return None };
    u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()
}

/// A vCPU that reads ports and a main loop that answers questions have nothing to wait for but
/// each other.
fn the_kernel_is_a_witness(program: &Path) -> Outcome {
    let mut qemu = Qemu::start_this(program, &[], &["-machine", "pc", "-bios", "rom"])?;
    let vcpu = qemu.wait_for("its vCPU", |qemu| {
        let threads = threads::list(qemu.pid)?;
        let vcpu = threads.iter().find(|thread| thread.role == ThreadRole::Vcpu(VcpuId(0)));
        Ok(vcpu.map(|thread| thread.tid))
    })?;
    let _storm = Storm::start(&qemu)?;
    let mut sleeps: BTreeMap<u64, u32> = BTreeMap::new();
    let start = Instant::now();
    while sleeps.values().sum::<u32>() < 20 {
        if let Some(address) = mutex_slept_on(qemu.pid, vcpu) {
            *sleeps.entry(address).or_default() += 1;
        }
        check(start.elapsed() < DEADLINE, || format!("the vCPU slept on {sleeps:x?} only"))?;
        thread::sleep(Duration::from_micros(100));
    }
    let held = qemu.wait_for("an owner of the lock", |qemu| {
        Ok(Some(bql::locate(qemu.pid)?).filter(|bql| bql.owner_seen.is_some()))
    })?;
    let most = sleeps.iter().max_by_key(|(_, count)| **count).map(|(address, _)| *address);
    check(most == Some(held.address), || format!("it slept on {sleeps:x?}, found was {held:x?}"))?;
    check_owner(&qemu, &held)
}

fn check_owner(qemu: &Qemu, bql: &Bql) -> Outcome {
    let threads = threads::list(qemu.pid)?;
    let owner = threads.iter().find(|thread| Some(thread.tid) == bql.owner_seen);
    check(owner.is_some(), || format!("{:?} is none of {threads:?}", bql.owner_seen))
}

/// There the owner's word has an id that means nothing, or somebody else, on this side.
fn a_container_is_no_obstacle(program: &Path) -> Outcome {
    let unshare = ["unshare", "--pid", "--fork", "--kill-child"];
    let mut qemu = Qemu::start_this(program, &unshare, &["-machine", "pc", "-bios", "rom"])?;
    let parent = qemu.pid;
    qemu.pid = qemu
        .wait_for("QEMU below unshare", |_| {
            let children = file_of(parent, &format!("task/{parent}/children"));
            Ok(fs::read_to_string(children)?.split_whitespace().next().map(str::to_owned))
        })?
        .parse()
        .map(Tid)?;
    let error = bql::locate(parent).expect_err("unshare is no QEMU");
    check(matches!(error, BqlError::NotQemu), || error.to_string())?;
    let _storm = Storm::start(&qemu)?;
    let held = qemu.wait_for("an owner of the lock", |qemu| {
        Ok(Some(bql::locate(qemu.pid)?).filter(|bql| bql.owner_seen.is_some()))
    })?;
    check_owner(&qemu, &held)
}

fn the_mappings_agree(program: &Path) -> Outcome {
    let qemu = Qemu::start_this(program, &[], &["-machine", "none", "-S"])?;
    check_mappings(qemu.pid)?;
    let (data, bql) = (bql::exe_data(qemu.pid)?, bql::locate(qemu.pid)?);
    check(data.contains(bql.address), || format!("{bql:x?} is not in {data:x?}"))
}

/// Debian builds its Python without position independence, which no QEMU here is.
const FIXED_PROGRAM: &str = "/usr/bin/python3";

fn no_fixed_program() -> Option<String> {
    // `e_type` of elf(5): 2 is ET_EXEC.
    let is_fixed = fs::read(FIXED_PROGRAM).is_ok_and(|file| file.get(16..18) == Some(&[2, 0]));
    (!is_fixed).then(|| format!("{FIXED_PROGRAM} is no program with fixed addresses"))
}

fn fixed_addresses_agree() -> Outcome {
    let mut python = Command::new(FIXED_PROGRAM);
    let mut child = python
        .args(["-c", "print('up', flush=True); input()"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = [0; 2];
    let up = child.stdout.as_mut().map(|out| std::io::Read::read_exact(out, &mut said));
    let checked = check_mappings(Tid(child.id()));
    let _ = child.kill();
    let _ = child.wait();
    up.transpose()?;
    checked
}

/// The kernel's list: the executable's last writable mapping, and what follows it without a name.
fn check_mappings(pid: Tid) -> Outcome {
    let name = fs::read_link(file_of(pid, "exe"))?;
    let maps = fs::read_to_string(file_of(pid, "maps"))?;
    let range = |line: &str| -> Option<(u64, u64)> {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    };
    let is_data = |line: &&str| line.contains(" rw-p ") && line.ends_with(&*name.to_string_lossy());
    // A program whose loader was changed afterwards has a second one, far behind the first.
    let lines: Vec<&str> = maps.lines().collect();
    let first = lines.iter().position(is_data).ok_or("no writable mapping")?;
    let last = lines.iter().rposition(is_data).ok_or("it has one")?;
    let (Some((start, _)), Some((_, mut end))) = (range(lines[first]), range(lines[last])) else {
        return Err("its range is not read".into());
    };
    let tail =
        lines.get(last + 1).filter(|line| line.ends_with(" 0 ")).and_then(|line| range(line));
    if let Some((_, tail_end)) = tail.filter(|(tail_start, _)| *tail_start == end) {
        end = tail_end;
    }
    let data = bql::exe_data(pid)?;
    check(data.start == start && data.end <= end && data.end + 4096 > end, || format!("{data:x?}"))
}

fn a_vm_is_found() -> Outcome {
    let io = ["-object", "iothread,id=io0", "-device", "virtio-blk-pci,drive=n,id=d0,iothread=io0"];
    let node = ["-blockdev", "driver=file,filename=rom,node-name=n"];
    let mut qemu = Qemu::start(&[], &[&node[..], &io[..], &["-smp", "2"]].concat())?;
    let pcpus = [PcpuId(0)];
    let vm = qemu.wait_for("its vCPU threads", |qemu| {
        Ok(vm::look_at(qemu.pid, None).filter(|vm| vm.vcpus().count() == 2))
    })?;
    set_affinity(vm.threads[1].tid, &pcpus)?;
    let vm = vm::look_at(qemu.pid, None).ok_or("it was there a moment ago")?;
    let what = || format!("{vm:#?}");
    check(vm.name.as_deref() == Some("test") && vm.vmm == Vmm::Qemu, what)?;
    check(vm.accelerator == Some(Accelerator::Tcg) && vm.manager.is_none(), what)?;
    check(vm.qmp_sockets == [qemu.qmp_path()], what)?;
    let vcpus: Vec<Option<VcpuId>> = vm.vcpus().map(|thread| thread.vcpu).collect();
    check(vcpus == [Some(VcpuId(0)), Some(VcpuId(1))], what)?;
    // By the kernel's word and not the plan's: the other vCPU may run anywhere that this test may.
    check(vm.threads[1].affinity == pcpus, what)?;
    check(vm.threads[0].affinity == affinity(Tid(std::process::id()))?, what)?;
    check(vm.threads.iter().any(|thread| thread.iothread.as_deref() == Some("io0")), what)?;
    let disks = vm.disks.as_deref().ok_or("its disks are not known")?;
    let [disk] = disks else { return Err(what().into()) };
    check(disk.bus == Bus::Known(DiskBus::VirtioBlk) && disk.iothreads == ["io0"], what)?;
    // Its command line does not say so; the file that it has open does.
    check(disk.is_direct == Some(false), what)?;
    check(disk.is_direct_from == Some(DirectSource::OpenFile), what)?;
    let pid = qemu.pid.to_string();
    let listed = Command::new(env!("CARGO_BIN_EXE_vslice")).args(["ps", &pid]).output()?;
    let page = String::from_utf8_lossy(&listed.stdout).into_owned();
    let first = format!("test  QEMU (process {pid}), tcg, 2 vCPUs\n");
    check(listed.status.success() && page.starts_with(&first), || page.clone())?;
    check(page.contains("iothread io0") && page.contains("  pCPU0\n"), || page.clone())
}

/// The kernel keeps 15 bytes of a name, and the C library refuses a longer one: what is inferred from the order of the
/// iothreads is what QEMU says.
fn long_ids_are_told_apart(program: &Path) -> Outcome {
    let ids = ["iothread-virtioscsi0", "iothread-virtioscsi1", "io0", "io12345678901"];
    let objects = ids.map(|id| format!("iothread,id={id}"));
    let mut args: Vec<&str> = vec!["-S"];
    args.extend(objects.iter().flat_map(|object| ["-object", object.as_str()]));
    let mut qemu = Qemu::start_this(program, &[], &args)?;
    let vm = qemu.wait_for("its vCPU", |qemu| {
        Ok(vm::look_at(qemu.pid, None).filter(|vm| vm.vcpus().count() == 1))
    })?;
    let answer = Qmp::connect(&qemu.qmp_path())?.execute("query-iothreads", json!({}))?;
    let told = answer.as_array().ok_or("a list")?.iter().map(|iothread| {
        let id = iothread["id"].as_str().unwrap_or_default().to_owned();
        (iothread["thread-id"].as_u64().unwrap_or_default(), id)
    });
    let told: BTreeMap<u64, String> = told.collect();
    let seen = vm
        .threads
        .iter()
        .filter_map(|thread| Some((u64::from(thread.tid.0), thread.iothread.clone()?)));
    let seen: BTreeMap<u64, String> = seen.collect();
    check(seen == told && told.len() == ids.len(), || format!("{seen:?}, QEMU says {told:?}"))?;
    let inferred =
        vm.threads.iter().filter(|thread| thread.iothread_from == Some(vm::IothreadSource::Order));
    check(inferred.count() == 3, || format!("{vm:#?}"))
}

fn a_nameless_vm_is_found() -> Outcome {
    let mut qemu = Qemu::start(&[], &["-name", "plain,debug-threads=off"])?;
    let vm = qemu.wait_for("the VM", |qemu| Ok(vm::look_at(qemu.pid, None)))?;
    check(vm.name.as_deref() == Some("plain"), || format!("{vm:#?}"))?;
    // Under TCG nobody but QEMU itself knows which thread is whose.
    check(vm.vcpus().count() == 0 && vm.threads.len() > 1, || format!("{vm:#?}"))?;
    let pid = qemu.pid.to_string();
    let listed =
        Command::new(env!("CARGO_BIN_EXE_vslice")).args(["ps", &pid, "--json"]).output()?;
    let said: serde_json::Value = serde_json::from_slice(&listed.stdout)?;
    check(said["warnings"][0]["kind"] == "unknown_vcpus", || format!("{said:#}"))?;
    let missing = Command::new(env!("CARGO_BIN_EXE_vslice")).args(["ps", "nobody"]).output()?;
    let error = String::from_utf8_lossy(&missing.stderr).into_owned();
    check(missing.status.code() == Some(1) && error.contains("there is no VM 'nobody'"), || {
        error.clone()
    })
}

/// A qemu-ga that ends with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn an_agent_answers() -> Outcome {
    for blocked in ["", "guest-exec"] {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        let child = Command::new(tools::find("qemu-ga").ok_or("it was there a moment ago")?)
            .args(["-m", "unix-listen", "-b", blocked, "-p"])
            .args([path("ga"), "-t".into(), path(""), "-f".into(), path("pid")])
            .stdin(Stdio::null())
            .spawn()?;
        let _agent = Agent(child);
        let start = Instant::now();
        while !path("ga").exists() {
            check(start.elapsed() < DEADLINE, || "no socket of qemu-ga".to_owned())?;
            thread::sleep(NAP);
        }
        let mut qga = Qga::connect(&path("ga"))?;
        let info = qga.info()?;
        check(info.version.starts_with(|first: char| first.is_ascii_digit()), || {
            format!("{info:?}")
        })?;
        check(info.enabled.contains("guest-ping"), || format!("{info:?}"))?;
        check(info.enabled.contains("guest-exec") == blocked.is_empty(), || format!("{info:?}"))?;
        let ran = qga.execute("guest-exec", json!({"path": "true"}));
        let is_right = match &ran {
            Ok(ran) => blocked.is_empty() && ran["pid"].is_u64(),
            Err(QgaError::Disabled { command, .. }) => blocked == command,
            Err(_) => false,
        };
        check(is_right, || format!("{ran:?}"))?;
        let unknown = qga.execute("guest-unknown", json!({})).expect_err("no such command");
        check(matches!(unknown, QgaError::Disabled { .. }), || unknown.to_string())?;
    }
    Ok(())
}

fn the_monitor_answers() -> Outcome {
    let mut qemu = Qemu::start(&[], &["-machine", "pc", "-device", "virtio-scsi-pci"])?;
    let mut qmp = Qmp::connect(&qemu.qmp_path())?;
    let version = qmp.execute("query-version", json!({}))?;
    check(version["qemu"]["major"].is_u64(), || version.to_string())?;
    let busy = Qmp::connect_within(&qemu.qmp_path(), Duration::from_millis(100));
    let error = busy.expect_err("one client at a time");
    check(matches!(error, QmpError::Timeout { .. }), || error.to_string())?;
    let refused = qmp.execute("x-unknown", json!({})).expect_err("no such command");
    check(refused.to_string().contains("CommandNotFound"), || refused.to_string())?;
    // SeaBIOS has to find the device and give it an address.
    let map = qemu.wait_for("an address of the disk controller", |_| {
        let map = vslice_host::memory_map::parse(&qmp.human_monitor_command("info mtree -f")?);
        let mut bars = (0xfe00_0000_u64..0xff00_0000).step_by(4096);
        Ok(bars
            .any(|at| map.device_at_memory(at) == Some("virtio-pci-notify-virtio-scsi"))
            .then_some(map))
    })?;
    for (port, name) in [(0x1f0, "ide"), (0x71, "rtc"), (0xcfc, "pci-conf-data")] {
        check(map.device_at_port(port) == Some(name), || format!("{port:#x} is not {name}"))?;
    }
    check(map.device_at_memory(0).is_none(), || "RAM is a device".into())?;
    drop(qmp);
    // Now the next one is served.
    Qmp::connect(&qemu.qmp_path())?;
    Ok(())
}
