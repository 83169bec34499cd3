//! Which of a lane's ready jobs are listed in the runtime's ledger as not begun.
//!
//! They are taken out in order, so what is listed is a stretch: some before it are not listed any more, since writing is
//! done for several at once, and for some behind it there was no room. What is not listed counts as begun.

use std::iter;
use std::sync::Arc;

use crate::engine::{Ledger, SLOTS};
use crate::job::Fence;

pub(super) struct Listing {
    ledger: Arc<dyn Ledger>,
    page: usize,
    /// How many are ready before the first that is listed.
    before: usize,
    listed: usize,
    /// The slot of the first.
    slot: usize,
    /// The slots that were written for jobs on their way: the first, and how many.
    coming: Option<(usize, usize)>,
}

impl Listing {
    /// With so many jobs ready that are not listed. `None` where no more can be listed.
    pub fn new(ledger: &Arc<dyn Ledger>, ready: usize) -> Option<Self> {
        let page = ledger.page()?;
        Some(Self { ledger: Arc::clone(ledger), page, before: ready, listed: 0, slot: 0, coming: None })
    }

    fn end(&self) -> usize {
        (self.slot + self.listed) % SLOTS
    }

    /// Lists those that are on their way to the `ready` ones.
    pub fn foresee(&mut self, ready: usize, fences: impl Iterator<Item = Fence>) {
        self.in_vain();
        if self.before + self.listed != ready {
            return;
        }
        // As many slots as are before the first may be needed to list those again.
        let fences: Vec<Fence> = fences.take(SLOTS.saturating_sub(ready)).collect();
        if !fences.is_empty() && self.ledger.list(self.page, self.end(), &fences) {
            self.coming = Some((self.end(), fences.len()));
        }
    }

    /// They do not come.
    pub fn in_vain(&mut self) {
        if let Some((slot, count)) = self.coming.take() {
            self.ledger.strike(self.page, slot, count);
        }
    }

    /// They have come: there were so many ready, and now there are so many.
    pub fn arrived(&mut self, ready: usize, now: usize) {
        match self.coming {
            Some((slot, count)) if (slot, self.before + self.listed) == (self.end(), ready) && ready + count <= now => {
                self.coming = None;
                self.listed += count;
            }
            // Some that were ready are gone meanwhile, from the end.
            _ => self.in_vain(),
        }
        self.settle(now);
    }

    /// The first was taken by a thread; so many are left. Of the listed, a stride is struck at once.
    pub fn taken(&mut self, stride: usize, left: usize) {
        if self.before > 0 {
            self.before -= 1;
        } else if self.listed > 0 {
            let struck = stride.clamp(1, self.listed);
            self.ledger.strike(self.page, self.slot, struck);
            self.slot = (self.slot + struck) % SLOTS;
            self.listed -= struck;
            self.before = struck - 1;
        }
        self.settle(left);
    }

    /// The last are gone, given back; so many are left. No thread will begin their attempts: their slots may stay.
    pub fn shorten(&mut self, left: usize) {
        self.before = self.before.min(left);
        self.listed = self.listed.min(left - self.before);
        self.settle(left);
    }

    /// Lists those again that were struck and not taken since.
    pub fn list_again(&mut self, ready: impl Iterator<Item = Fence>) {
        let count = self.before;
        if count == 0 || count + self.listed + self.coming.map_or(0, |(_, count)| count) > SLOTS {
            return;
        }
        let slot = (self.slot + SLOTS - count) % SLOTS;
        let fences: Vec<Fence> = iter::zip(ready, 0..count).map(|(fence, _)| fence).collect();
        if fences.len() == count && self.ledger.list(self.page, slot, &fences) {
            (self.slot, self.before) = (slot, 0);
            self.listed += count;
        }
    }

    /// Where none is listed, all are before the first that will be.
    fn settle(&mut self, ready: usize) {
        if self.listed == 0 {
            self.before = ready;
        }
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.ledger.give_back(self.page);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use parking_lot::Mutex;

    use super::*;

    struct Page(Mutex<Vec<i64>>);

    impl Ledger for Page {
        fn page(&self) -> Option<usize> {
            Some(0)
        }

        fn give_back(&self, _: usize) {}

        fn list(&self, _: usize, slot: usize, fences: &[Fence]) -> bool {
            let mut slots = self.0.lock();
            fences.iter().enumerate().for_each(|(n, fence)| slots[(slot + n) % SLOTS] = fence.id);
            true
        }

        fn strike(&self, _: usize, slot: usize, count: usize) {
            let mut slots = self.0.lock();
            (slot..slot + count).for_each(|slot| slots[slot % SLOTS] = 0);
        }
    }

    fn fence(id: i64) -> Fence {
        Fence { id, attempt: 1, attempted_at: id }
    }

    #[test]
    fn whatever_happens_no_job_that_was_taken_is_listed_and_few_that_were_not_are_missing() {
        for seed in 0..30 {
            let mut random = fastrand::Rng::with_seed(seed);
            let page = Arc::new(Page(Mutex::new(vec![0; SLOTS])));
            let ledger: Arc<dyn Ledger> = page.clone();
            let mut ready: VecDeque<i64> = (1..=random.i64(0..5)).collect();
            let mut next = 100;
            let mut listing = Listing::new(&ledger, ready.len()).unwrap();
            let mut begun: HashSet<i64> = HashSet::new();
            for step in 0..200 {
                match random.u8(..10) {
                    0..3 => {
                        let coming: Vec<i64> = (next..next + random.i64(1..120)).collect();
                        next += 1000;
                        listing.foresee(ready.len(), coming.iter().map(|id| fence(*id)));
                        // Others take some meanwhile, or all that is ready is given back.
                        for _ in 0..random.usize(..3) {
                            if let Some(id) = ready.pop_front() {
                                listing.taken(random.usize(1..17), ready.len());
                                begun.insert(id);
                            }
                        }
                        if random.u8(..4) == 0 {
                            ready.truncate(random.usize(..=ready.len()));
                            listing.shorten(ready.len());
                        }
                        if random.u8(..4) == 0 {
                            listing.in_vain();
                            // What was foreseen and does not come may be claimed and begun by anybody.
                            begun.extend(&coming);
                        } else {
                            let before = ready.len();
                            ready.extend(&coming);
                            listing.arrived(before, ready.len());
                        }
                    }
                    3..8 => {
                        for _ in 0..random.usize(..40) {
                            if let Some(id) = ready.pop_front() {
                                listing.taken(random.usize(1..17), ready.len());
                                begun.insert(id);
                            }
                        }
                    }
                    8 => {
                        ready.truncate(random.usize(..=ready.len()));
                        listing.shorten(ready.len());
                    }
                    _ => listing.list_again(ready.iter().map(|id| fence(*id))),
                }
                let listed = page.0.lock();
                assert!(listed.iter().all(|id| !begun.contains(id)), "seed {seed}, step {step}");
                drop(listed);
                if ready.len() <= SLOTS / 2 && listing.before + listing.listed == ready.len() {
                    listing.list_again(ready.iter().map(|id| fence(*id)));
                    let listed = page.0.lock();
                    let listed: HashSet<i64> = listed.iter().copied().collect();
                    let missing = ready.iter().filter(|id| !listed.contains(id)).count();
                    assert_eq!(missing, 0, "seed {seed}, step {step}");
                }
            }
        }
    }

    #[test]
    fn jobs_are_struck_a_stride_at_a_time_and_listed_again_where_no_thread_came() {
        let page = Arc::new(Page(Mutex::new(vec![0; SLOTS])));
        let ledger: Arc<dyn Ledger> = page.clone();
        let listed = || page.0.lock().iter().filter(|id| **id != 0).count();
        let mut listing = Listing::new(&ledger, 0).unwrap();
        listing.foresee(0, (1..=100).map(fence));
        assert_eq!(listed(), 100, "before they are there");
        listing.arrived(0, 100);
        listing.taken(16, 99);
        assert_eq!(listed(), 84);
        (0..15).for_each(|n| listing.taken(16, 98 - n));
        assert_eq!(listed(), 84, "a stride is paid for once");
        listing.taken(16, 83);
        assert_eq!(listed(), 68);
        listing.list_again((18..=100).map(fence));
        assert_eq!(listed(), 83);
    }
}
