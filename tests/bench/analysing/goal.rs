//! A row of the table: a goal, and what was measured of it. Pure.

use crate::statistics::{Middle, middle};

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    /// A rate.
    More,
    /// A cost.
    Less,
}

/// What has to be reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// By the figure itself, in its unit.
    Figure(f64),
    /// By how many times better than the rival.
    Ratio(f64),
}

/// Whom a figure is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rival {
    pub(crate) name: &'static str,
    /// In the row's unit, one for each of vslice's.
    pub(crate) values: Vec<f64>,
}

/// A goal, and every value that was measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) better: Better,
    pub(crate) goal: Goal,
    /// Digits behind the point.
    pub(crate) places: usize,
    /// Of the older vslice; none if there is none, or if nothing measures it there.
    pub(crate) parent: Vec<f64>,
    pub(crate) now: Vec<f64>,
    pub(crate) rival: Option<Rival>,
    /// Why `now` is empty.
    pub(crate) missing: Option<String>,
}

impl Row {
    /// How many times better than the rival, pair by pair.
    pub(crate) fn ratio(&self) -> Option<Middle> {
        self.times_better(&self.rival.as_ref()?.values)
    }

    /// How many times better than the older vslice, pair by pair.
    pub(crate) fn gain(&self) -> Option<Middle> {
        self.times_better(&self.parent)
    }

    fn times_better(&self, others: &[f64]) -> Option<Middle> {
        middle(self.now.iter().zip(others).map(|(now, other)| match self.better {
            Better::More => now / other,
            Better::Less => other / now,
        }))
    }

    /// Whether the median reaches the goal.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let now = middle(self.now.iter().copied())?.median;
        match (self.goal, self.better) {
            (Goal::Figure(goal), Better::More) => Some(now >= goal),
            (Goal::Figure(goal), Better::Less) => Some(now <= goal),
            (Goal::Ratio(goal), _) => Some(self.ratio()?.median >= goal),
        }
    }

    /// The goal in words.
    pub(crate) fn goal_text(&self) -> String {
        match (self.goal, self.better) {
            (Goal::Figure(goal), Better::More) => format!(">= {goal}"),
            (Goal::Figure(goal), Better::Less) => format!("<= {goal}"),
            (Goal::Ratio(goal), _) => format!("{goal:.1}x"),
        }
    }
}
