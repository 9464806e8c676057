//! Laws of what was observed; see [`crate::summary::laws`].

use super::model::{Observed, ObservedOperation, ProcessTotals, WorstObserved};
use crate::summary::laws::{Laws, OfClass};
use crate::summary::model::LatencyNs;
use crate::summary::totals::{ByClass, sum};
use vslice_core::join::{Part, Phase};

/// What processes come to in one class.
type OfProcess = fn(&ByClass<ProcessTotals>) -> &ProcessTotals;

impl Laws {
    /// Every law of observed requests.
    pub(in crate::summary) fn observed(&mut self, observed: &Observed) {
        if observed.answer.is_some_and(|answer| answer >= observed.operations.len()) {
            self.violations.push("observed.answer is no place in its operations".to_owned());
        }
        for guest in &observed.guests {
            let of_guest = || observed.operations.iter().filter(|row| row.vm == guest.vm);
            let counted = sum(of_guest().map(|row| row.count).chain([guest.beyond]));
            let what = format!("the observed requests of {}", guest.vm);
            self.equal(&what, guest.count, "its operations have", counted);
        }
        observed.operations.iter().for_each(|row| self.operation(row));
    }

    fn operation(&mut self, row: &ObservedOperation) {
        let name = format!("{} of {} {}", row.plural(), row.vm, row.device);
        let [all, p99, p999] = of_classes(row, &name);
        for of in [&all, &p99, &p999] {
            self.class(of);
            self.phases(of);
            self.causes(of);
            self.inactivity(of);
            self.context(of);
        }
        self.what_if(row.what_if.as_ref(), &all, &row.latency_ns);
        self.nested(&all, &p99);
        self.nested(&all, &p999);
        // Where so many were not sent that this one is unknown, its class is empty.
        if row.latency_ns.p99.is_some() {
            self.nested(&p99, &p999);
        }
        self.known_ascend(&name, &row.latency_ns);
        let unplaced = row.unattributable_by.unplaced();
        let left_out = sum([all.class.unattributable, unplaced]);
        let what = format!("unattributable {name}");
        let total = row.unattributable_by.total();
        self.equal(&what, total, "the class of all leaves out", left_out);
        let counted = sum([row.placed(), unplaced]);
        self.equal(&name, row.count, "those with and without a latency are", counted);
        self.processes(row, &name);
        row.worst.iter().for_each(|worst| self.worst(worst, &name));
    }

    /// What is context is there, and what waited is too.
    fn context(&mut self, of: &OfClass<'_>) {
        let waits = sum([of.parts.get(Part::PreemptWait), of.parts.get(Part::WakeupDelay)]);
        let what = format!("classes.{}.wait_ns", of.name);
        self.at_most(&what, of.class.wait_ns, "its parts", waits);
        for part in Part::ALL {
            let what = format!("the context of {} in the queue of {}", part.name(), of.name);
            let whole = of.io.get(Phase::GuestQueue, part);
            self.at_most(&what, of.io.queue_context(part), "what is there", whole);
        }
    }

    fn processes(&mut self, row: &ObservedOperation, name: &str) {
        let all = || row.processes.iter().map(|of| &of.classes).chain([&row.other_processes]);
        let classes: [(&str, OfProcess, _); 3] = [
            ("all", |of| &of.all, &row.classes.all),
            ("p99", |of| &of.p99, &row.classes.p99),
            ("p999", |of| &of.p999, &row.classes.p999),
        ];
        for (class, of, whole) in classes {
            let what = |what: &str| format!("{what} of the processes in {class} of {name}");
            let count = sum(all().map(|totals| of(totals).count));
            self.equal(&what("the count"), count, "the class has", whole.count);
            let latency_ns = sum(all().map(|totals| of(totals).latency_ns));
            self.equal(&what("the latency"), latency_ns, "the class has", whole.latency_ns);
            let wait_ns = sum(all().map(|totals| of(totals).wait_ns));
            self.equal(&what("the wait"), wait_ns, "the class has", whole.wait_ns);
            for totals in all() {
                let phases = sum(of(totals).phases_ns.values().copied());
                self.equal(&what("the phases of one"), phases, "it took", of(totals).latency_ns);
            }
        }
    }

    fn worst(&mut self, worst: &WorstObserved, name: &str) {
        let what = format!("the parts of one of the slowest {name}");
        self.equal(&what, worst.parts.total_ns(), "it took", worst.latency_ns);
        let issued_ns = worst.issued_ns.unwrap_or(0);
        let what = format!("the queue of one of the slowest {name}");
        self.at_most(&what, issued_ns, "it took", worst.latency_ns);
    }

    /// Those that are known ascend.
    fn known_ascend(&mut self, name: &str, latency_ns: &LatencyNs) {
        let LatencyNs { min, mean, p50, p90, p99, p999, p9999, max } = *latency_ns;
        for values in [&[min, p50, p90, p99, p999, p9999, max][..], &[min, mean, max]] {
            let known: Vec<u64> = values.iter().copied().flatten().collect();
            if !known.is_sorted() {
                self.violations.push(format!("the latencies of {name} do not ascend: {values:?}"));
            }
        }
    }
}

fn of_classes<'a>(row: &'a ObservedOperation, name: &str) -> [OfClass<'a>; 3] {
    let (classes, parts, io, causes) = (&row.classes, &row.parts, &row.io, &row.causes);
    [
        ("all", &classes.all, &parts.all, &io.all, &causes.all),
        ("p99", &classes.p99, &parts.p99, &io.p99, &causes.p99),
        ("p999", &classes.p999, &parts.p999, &io.p999, &causes.p999),
    ]
    .map(|(class_name, class, parts, io, causes)| OfClass {
        name: format!("{class_name} of {name}"),
        class,
        parts,
        io,
        causes,
    })
}
