//! Rules and times of random tests: of every size, and gathered where verdicts change.

use crate::model::FiveSteps;
use crate::seed::Random;

/// The longest window, in ns: 39 hours.
const LONGEST_WINDOW: u64 = 1 << 47;
/// So long may a scene last; differences of registers have a sign and 57 bits.
const LONGEST_SCENE: i128 = 1 << 56;

/// Every order of magnitude between the two as likely as any other.
pub fn of_any_size(random: &mut Random, least: u64, most: u64) -> u64 {
    let bits = u64::from(most.ilog2() - least.ilog2()) + 1;
    let scale = least.ilog2() + random.below(bits) as u32;
    let value = (1 << scale) | (random.next() & ((1 << scale) - 1));
    value.clamp(least, most)
}

/// A number of tokens, and the time in which one regenerates.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    pub tokens: u64,
    pub regeneration: u64,
}

impl Tokens {
    /// Without --tokens and --rate: five, one a second.
    pub const USUAL: Tokens = Tokens {
        tokens: 5,
        regeneration: 1_000_000_000,
    };

    pub fn random(random: &mut Random) -> Tokens {
        let regeneration = of_any_size(random, 1, LONGEST_WINDOW);
        // Mostly few, so that they are used up.
        let most = [4, 16, 1 << 16][random.below(3) as usize];
        let most = (LONGEST_WINDOW / regeneration).clamp(1, most);
        Tokens {
            tokens: of_any_size(random, 1, most),
            regeneration,
        }
    }

    pub fn model(self) -> FiveSteps {
        FiveSteps::new(self.tokens, self.regeneration)
    }

    pub fn window(self) -> u64 {
        self.tokens * self.regeneration
    }
}

/// How time goes on from packet to packet.
#[derive(Clone, Debug)]
pub struct Clock {
    now: i128,
    end: i128,
    /// To the next packet, usually: twice this at most.
    pause: u64,
    window: i128,
}

impl Clock {
    pub fn random(random: &mut Random, rule: Tokens) -> Clock {
        let window = rule.window();
        let soon = random.below(4 * window);
        let now = match random.below(6) {
            // Just after boot: now - B is before the clock began.
            0 => random.below(window),
            // The register's sign changes, and it wraps around.
            1 => (1 << 57) - soon,
            2 => (1 << 58) - soon,
            // So does the kernel's clock.
            3 => (1 << 63) - soon,
            4 => 0_u64.wrapping_sub(soon),
            _ => random.below(1 << 60),
        };
        let now = i128::from(now);
        Clock {
            now,
            end: now + LONGEST_SCENE,
            pause: of_any_size(random, 1, rule.regeneration),
            window: window.into(),
        }
    }

    /// When the next packet comes, of a source about which `model` knows.
    pub fn advance(&mut self, random: &mut Random, model: &FiveSteps) -> i128 {
        let edge = model.window().unwrap_or([self.now; 2]);
        let [tmin, tmax] = edge.map(|edge| edge - 1 + i128::from(random.below(3)));
        let next = match random.below(256) {
            // At once, as packets of one interrupt come.
            0..96 => self.now,
            // At an edge of the window, or where all that is known says no more; to the ns.
            96..128 => tmin,
            128 => tmax,
            129 => tmax + self.window * i128::from(1 + random.below(2)),
            130 => self.now + i128::from(random.below(4 * self.window as u64)),
            _ => self.now + i128::from(random.below(2 * self.pause)),
        };
        self.now = next.clamp(self.now, self.end);
        self.now
    }
}
