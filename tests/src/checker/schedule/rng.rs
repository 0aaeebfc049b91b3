//! Seeded pseudo-random numbers, the same in every version. (No library's generator promises that.)

/// splitmix64 (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub(super) struct SplitMix64(u64);

impl SplitMix64 {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number in `low..=high`.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// Returns true in `part` of `whole` cases.
    pub(super) fn chance(&mut self, part: u64, whole: u64) -> bool {
        self.between(1, whole) <= part
    }

    /// Returns one of so many nodes.
    pub(super) fn node(&mut self, nodes: u8) -> u8 {
        u8::try_from(self.between(0, u64::from(nodes) - 1)).unwrap_or(0)
    }

    /// Returns all nodes in random order.
    pub(super) fn shuffled(&mut self, nodes: u8) -> Vec<u8> {
        let mut order: Vec<u8> = (0..nodes).collect();
        for at in (1..order.len()).rev() {
            let other = usize::try_from(self.between(0, at as u64)).unwrap_or(0);
            order.swap(at, other);
        }
        order
    }
}
