//! A few of many, the same for the same seed, in whatever order they come.

use std::collections::BinaryHeap;

use dormouse_core::derive;

use super::source::Item;

/// The sample so far: as many as were asked for, and no more is kept.
pub(super) struct Sample {
    size: usize,
    seed: u64,
    /// Those whose hashes are smallest, the largest of them on top.
    kept: BinaryHeap<([u8; 16], Item)>,
}

impl Sample {
    pub(super) fn new(size: usize, seed: u64) -> Self {
        Self { size, seed, kept: BinaryHeap::new() }
    }

    pub(super) fn offer(&mut self, item: Item) {
        let name = item.name();
        let hash = derive("dormouse 2026 replay sample", &[&self.seed.to_le_bytes(), name.as_bytes()]);
        self.kept.push((hash, item));
        if self.kept.len() > self.size {
            self.kept.pop();
        }
    }

    /// What was chosen, in an order that depends on the seed alone.
    pub(super) fn chosen(self) -> Vec<Item> {
        self.kept.into_sorted_vec().into_iter().map(|(_, item)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_depends_on_its_seed_and_not_on_the_order() {
        let items: Vec<_> = (0..100).map(|n| Item::File(format!("{n}.json").into())).collect();
        let sample = |seed, items: &mut dyn Iterator<Item = &Item>| {
            let mut sample = Sample::new(10, seed);
            items.for_each(|item| sample.offer(item.clone()));
            sample.chosen()
        };
        let chosen = sample(7, &mut items.iter());
        assert_eq!(chosen.len(), 10);
        assert_eq!(chosen, sample(7, &mut items.iter().rev()));
        assert_ne!(chosen, sample(8, &mut items.iter()));
        assert_eq!(sample(7, &mut items.iter().take(3)).len(), 3);
    }
}
