//! Chance that can be repeated.

/// Chance that is the same for the same seed (SplitMix64).
pub struct Chance(u64);

impl Chance {
    /// From `OUMI_TEST_SEED`, else from the clock. It is printed, so that a failure can be repeated.
    pub fn new(what: &str) -> Self {
        let seed = std::env::var("OUMI_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| {
                let now = std::time::SystemTime::now();
                let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
                u64::from(since.subsec_nanos()) ^ since.as_secs()
            });
        println!("{what}: OUMI_TEST_SEED={seed}");
        Self(seed)
    }

    /// From a seed that came by chance itself.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    pub fn one_in(&mut self, end: usize) -> bool {
        self.below(end) == 0
    }

    /// Waits for a random while: the instant of what follows is the chance.
    pub fn wait_up_to(&mut self, milliseconds: usize) {
        let micros = self.below(milliseconds * 1000);
        std::thread::sleep(std::time::Duration::from_micros(
            u64::try_from(micros).unwrap(),
        ));
    }
}
