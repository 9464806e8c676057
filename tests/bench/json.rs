//! The result for programs: every window and what follows from them.

use crate::processes::Window;
use crate::rounds::{Measured, Results, Row};
use crate::statistics::Middle;
use serde_json::{Value, json};

/// The whole result.
pub(crate) fn of(results: &Results) -> Value {
    json!({
        "rounds": results.rounds,
        "window_ns": u64::try_from(results.window.as_nanos()).unwrap_or(u64::MAX),
        "measured_pcpu": results.places.measured.0,
        "others_pcpu": results.places.others.0,
        "load_before": results.load[0],
        "load_after": results.load[1],
        "nothing": results.nothing.iter().map(window).collect::<Vec<_>>(),
        "rows": results.rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn window(window: &Window) -> Value {
    json!({
        "switches_count": window.switches_count,
        "wall_ns": window.wall_ns,
        "quiet_switch_ps": window.quiet_switch_ps,
        "processor_ns": window.processor_ns,
        "steal_ns": window.steal_ns,
    })
}

fn row(row: &Row) -> Value {
    let windows = match &row.measured {
        Ok(windows) => windows,
        Err(reason) => return json!({"rival": row.rival.to_string(), "missing": reason}),
    };
    json!({
        "rival": row.rival.to_string(),
        "limit_ns": row.rival.limit_ns(),
        "cost_quiet_ns": row.quiet_ns().map(middle),
        "cost_wall_ns": row.wall_ns().map(middle),
        "cost_processor_ns": row.processor_ns().map(middle),
        "windows": windows.iter().map(measured).collect::<Vec<_>>(),
    })
}

pub(crate) fn middle(middle: Middle) -> Value {
    json!({"median": middle.median, "low": middle.interval.0, "high": middle.interval.1})
}

fn measured(measured: &Measured) -> Value {
    json!({
        "before": window(&measured.windows.before),
        "during": window(&measured.windows.during),
        "after": window(&measured.windows.after),
        "switches_count": measured.switches_count,
        "recorded_switches_count": measured.recorded.switches_count,
        "recorded_stacks_count": measured.recorded.stacks_count,
        "lost_count": measured.recorded.lost_count,
    })
}
