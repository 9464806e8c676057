use super::*;
use tempfile::TempDir;

/// A machine with vCPUs 0 to 3, and what is to be different: files, and what they say.
fn machine(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let usual = [("cpu/online", "0-3\n"), ("cpu/isolated", "\n"), ("vda/queue/rq_affinity", "1\n")];
    for (file, text) in usual.iter().chain(files) {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn completing(files: &[(&str, &str)]) -> CompletionVcpu {
    let root = machine(files);
    let of = |name| root.path().join(name);
    Vcpus::at(&of("cpu")).completing(&of("vda"), Some(&of("function")))
}

/// The caches of vCPU 0: its own of the first two levels, and one that it shares with these.
fn cache(shared: &str) -> [(&str, &str); 6] {
    [
        ("cpu/cpu0/cache/index0/level", "1\n"),
        ("cpu/cpu0/cache/index0/shared_cpu_list", "0\n"),
        ("cpu/cpu0/cache/index2/level", "2\n"),
        ("cpu/cpu0/cache/index2/shared_cpu_list", "0\n"),
        ("cpu/cpu0/cache/index3/level", "3\n"),
        ("cpu/cpu0/cache/index3/shared_cpu_list", shared),
    ]
}

const ONE_QUEUE: (&str, &str) = ("vda/mq/0/cpu_list", "0, 1, 2, 3\n");

/// A queue for each vCPU, with a vector for each and one more.
const OWN_QUEUES: [(&str, &str); 9] = [
    ("vda/mq/0/cpu_list", "0\n"),
    ("vda/mq/1/cpu_list", "1, 7\n"),
    ("vda/mq/2/cpu_list", "2\n"),
    ("vda/mq/3/cpu_list", "3\n"),
    ("function/msi_irqs/24", "msix\n"),
    ("function/msi_irqs/25", "msix\n"),
    ("function/msi_irqs/26", "msix\n"),
    ("function/msi_irqs/27", "msix\n"),
    ("function/msi_irqs/28", "msix\n"),
];

#[test]
fn a_completion_may_be_sent_on_where_vcpus_share_a_queue_and_no_cache() {
    use CompletionVcpu::{Interrupted, InterruptedOrQueued, Queued, Unknown};
    let affinity = |value| ("vda/queue/rq_affinity", value);
    assert_eq!(completing(&[ONE_QUEUE]), InterruptedOrQueued, "no cache is told of");
    assert_eq!(completing(&[ONE_QUEUE, affinity("0\n")]), Interrupted);
    assert_eq!(completing(&[ONE_QUEUE, affinity("2\n")]), Queued);
    assert_eq!(completing(&[ONE_QUEUE, affinity("3\n")]), Unknown);
    assert_eq!(completing(&[ONE_QUEUE, affinity("")]), Unknown);
    assert_eq!(completing(&[ONE_QUEUE, ("cpu/online", "0\n")]), Interrupted, "one vCPU");
    assert_eq!(completing(&[ONE_QUEUE, ("cpu/online", "")]), Unknown);
}

#[test]
fn within_a_last_level_cache_it_is_sent_on_only_if_that_is_demanded() {
    use CompletionVcpu::{Interrupted, InterruptedOrQueued, Queued};
    let with = |shared, more: (&str, &str)| completing(&[&cache(shared)[..], &[more]].concat());
    assert_eq!(with("0-3\n", ONE_QUEUE), Interrupted);
    assert_eq!(with("0-1\n", ONE_QUEUE), InterruptedOrQueued, "two sockets");
    assert_eq!(with("0-3\n", ("vda/queue/rq_affinity", "2\n")), Queued);
    assert_eq!(with("0-3\n", ("cpu/isolated", "2-3\n")), InterruptedOrQueued);
    assert_eq!(with("0-3\n", ("cpu/cpu2/cpu_capacity", "512\n")), InterruptedOrQueued);
    let first_level = [
        ONE_QUEUE,
        ("cpu/cpu0/cache/index0/level", "1\n"),
        ("cpu/cpu0/cache/index0/shared_cpu_list", "0-3\n"),
    ];
    assert_eq!(completing(&first_level), InterruptedOrQueued, "threads of one core");
}

#[test]
fn a_vcpu_with_a_queue_and_a_vector_of_its_own_completes_what_it_asked_for() {
    use CompletionVcpu::{Interrupted, InterruptedOrQueued, Queued};
    assert_eq!(completing(&OWN_QUEUES), Interrupted, "vCPU 7 is not online");
    let forced = [&OWN_QUEUES[..], &[("vda/queue/rq_affinity", "2\n")]].concat();
    assert_eq!(completing(&forced), Interrupted);
    assert_eq!(completing(&OWN_QUEUES[..8]), InterruptedOrQueued, "vectors may be shared");
    assert_eq!(completing(&OWN_QUEUES[..4]), InterruptedOrQueued, "an interrupt line");
    let shared = [&OWN_QUEUES[..], &[("cpu/online", "0-7\n")]].concat();
    assert_eq!(completing(&shared), InterruptedOrQueued, "vCPUs 1 and 7 have one queue");
    assert_eq!(completing(&[&shared[..], &[("vda/queue/rq_affinity", "2\n")]].concat()), Queued);
}
