//! An exact solver for small racks.

/// The least capacity that must be woken so that `need` pages fit on at most `spread` bricks: branch and bound over the bricks,
/// each (free, cost of waking). None if it cannot be done.
pub(crate) fn cheapest(bricks: &mut [(u64, u64)], need: u64, spread: usize) -> Option<u64> {
    fn branch(bricks: &[(u64, u64)], need: u64, spread: usize, cost: u64, best: &mut Option<u64>) {
        if best.is_some_and(|best| cost >= best) {
            return;
        }
        if need == 0 {
            *best = Some(cost);
            return;
        }
        let Some(((free, price), rest)) = bricks.split_first() else { return };
        // Bricks come by falling room: if even `spread` of this size are too little, nothing below will do.
        if spread == 0 || free * (spread as u64) < need {
            return;
        }
        branch(rest, need.saturating_sub(*free), spread - 1, cost + price, best);
        branch(rest, need, spread, cost, best);
    }
    bricks.sort_unstable_by_key(|(free, price)| (std::cmp::Reverse(*free), *price));
    let mut best = None;
    branch(bricks, need, spread, 0, &mut best);
    best
}
