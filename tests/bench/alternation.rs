//! Rivals between windows of nothing, forwards in one round and backwards in the next: each difference is between
//! neighbours, and what grows with time cancels out.

/// What a rival can be measured on.
pub(crate) trait Bench {
    /// Who is measured.
    type Rival: Copy;
    /// What happened for some time.
    type Window: Copy;
    /// What is kept of a rival's window.
    type Measured;

    /// A window in which nobody records.
    fn window(&mut self) -> anyhow::Result<Self::Window>;

    /// A window in which the rival records, after this one without; and the one after it without.
    fn measure(
        &mut self,
        rival: Self::Rival,
        before: Self::Window,
    ) -> anyhow::Result<(Self::Measured, Self::Window)>;
}

/// A rival's window and its two neighbours, in which nobody recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Between<Window> {
    pub(crate) before: Window,
    pub(crate) during: Window,
    pub(crate) after: Window,
}

impl<Window> Between<Window> {
    /// By how much `of` a window is more than that of its neighbours.
    pub(crate) fn difference(&self, of: fn(&Window) -> f64) -> f64 {
        of(&self.during) - f64::midpoint(of(&self.before), of(&self.after))
    }
}

/// All windows of a rival, or why there are none.
#[derive(Debug)]
pub(crate) struct Row<Rival, Measured> {
    pub(crate) rival: Rival,
    pub(crate) measured: Result<Vec<Measured>, String>,
}

impl<Rival, Measured> Row<Rival, Measured> {
    /// None yet, or why there will be none.
    pub(crate) fn new(rival: Rival, missing: Option<String>) -> Self {
        Row { rival, measured: missing.map_or_else(|| Ok(Vec::new()), Err) }
    }

    pub(crate) fn windows(&self) -> &[Measured] {
        self.measured.as_deref().unwrap_or_default()
    }
}

/// Measures everything into the rows; `told` hears of each round. Every window in which nobody recorded comes back.
pub(crate) fn rounds<Of: Bench>(
    bench: &mut Of,
    rows: &mut [Row<Of::Rival, Of::Measured>],
    rounds: usize,
    told: &mut dyn FnMut(usize),
) -> anyhow::Result<Vec<Of::Window>> {
    let mut nothing = Vec::new();
    for round in 0..rounds {
        told(round + 1);
        let mut before = bench.window()?;
        nothing.push(before);
        for place in order(rows.len(), round) {
            let row = &mut rows[place];
            let Ok(measured) = &mut row.measured else { continue };
            match bench.measure(row.rival, before) {
                Ok((one, after)) => {
                    measured.push(one);
                    nothing.push(after);
                    before = after;
                }
                Err(error) => row.measured = Err(format!("{error:#}")),
            }
        }
    }
    Ok(nothing)
}

/// Forwards in even rounds, backwards in odd ones.
pub(crate) fn order(count: usize, round: usize) -> Vec<usize> {
    if round.is_multiple_of(2) { (0..count).collect() } else { (0..count).rev().collect() }
}

/// Stolen of each thousand ns of some windows, which are told as their length and what was stolen of it.
pub(crate) fn steal_permille(windows: impl Iterator<Item = (u64, u64)>) -> u64 {
    let (wall_ns, steal_ns) =
        windows.fold((0, 0), |(wall, steal), one| (wall + one.0, steal + one.1));
    steal_ns * 1000 / wall_ns.max(1)
}
