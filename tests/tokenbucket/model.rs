//! What the rules say, in exact arithmetic: times have no width here and do not wrap. Written from the
//! descriptions of the original and of the policer, so that a mistake of the programs is not made twice.

/// The original's five steps for one flow, with its XFSM table. Times in ns.
#[derive(Clone, Copy, Debug)]
pub struct FiveSteps {
    /// N.
    tokens: i128,
    /// R: one token regenerates in this time.
    regeneration: i128,
    /// What the state table has of the flow.
    leaf: Option<Leaf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leaf {
    state: State,
    tmin: i128,
    tmax: i128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Zero,
    One,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Update {
    /// In the window.
    Case1,
    /// The window is too old.
    Case2,
    /// To the left of the window.
    Case3,
}

const FORWARD: bool = true;
const DROP: bool = false;

/// State, cond1, cond2; next state, action, update.
type Row = ((State, bool, bool), (State, bool, Update));
const XFSM: [Row; 4] = [
    (
        (State::Zero, true, true),
        (State::One, FORWARD, Update::Case2),
    ),
    (
        (State::One, true, false),
        (State::One, FORWARD, Update::Case2),
    ),
    (
        (State::One, true, true),
        (State::One, FORWARD, Update::Case1),
    ),
    ((State::One, false, true), (State::One, DROP, Update::Case3)),
];

impl FiveSteps {
    pub fn new(tokens: u64, regeneration: u64) -> FiveSteps {
        FiveSteps {
            tokens: tokens.into(),
            regeneration: regeneration.into(),
            leaf: None,
        }
    }

    /// B.
    fn depth(&self) -> i128 {
        (self.tokens - 1) * self.regeneration
    }

    pub fn passes(&mut self, now: i128) -> bool {
        let (before, after) = (now - self.depth(), now + self.regeneration);
        let leaf = self.leaf.get_or_insert(Leaf {
            state: State::Zero,
            tmin: before,
            tmax: after,
        });
        let (cond1, cond2) = (now >= leaf.tmin, now <= leaf.tmax);
        let row = XFSM
            .iter()
            .find(|(key, _)| *key == (leaf.state, cond1, cond2));
        let Some((_, (next, action, update))) = row else {
            panic!("no row for {leaf:?} at {now}: the original never gets there");
        };
        leaf.state = *next;
        match update {
            Update::Case1 => {
                leaf.tmin += self.regeneration;
                leaf.tmax += self.regeneration;
            }
            Update::Case2 => {
                leaf.tmin = before;
                leaf.tmax = after;
            }
            Update::Case3 => (),
        }
        *action
    }

    /// Segments that come in one packet: each takes a token, and they go together. More of them than a
    /// full bucket lets pass go when it is full, and are charged in full all the same.
    pub fn pass_together(&mut self, segments: u32, now: i128) -> bool {
        let segments = i128::from(segments);
        let most = self.tokens + 1;
        let mut trial = *self;
        for _ in 0..segments.min(most) {
            if !trial.passes(now) {
                return false;
            }
        }
        if let Some(leaf) = &mut trial.leaf {
            let beyond = (segments - most).max(0) * self.regeneration;
            leaf.tmin += beyond;
            leaf.tmax += beyond;
        }
        *self = trial;
        true
    }

    /// tmin and tmax; none of a flow that is not known.
    pub fn window(&self) -> Option<[i128; 2]> {
        self.leaf.map(|leaf| [leaf.tmin, leaf.tmax])
    }

    /// What the BPF program keeps of the flow: its state, which is `one` as soon as there is anything to
    /// keep, and tmin.
    pub fn word(&self, one: u8) -> Option<u64> {
        let [tmin, _] = self.window()?;
        Some(u64::from(one) << REGISTER_BITS | in_register(tmin))
    }
}

/// Bits of a flow's word below the state.
pub const REGISTER_BITS: u32 = 58;

/// A time in as many bits as a register has.
pub fn in_register(time: i128) -> u64 {
    time as u64 & ((1 << REGISTER_BITS) - 1)
}

/// The same rule, as the specification puts it in one line.
#[derive(Clone, Copy, Debug)]
pub struct ClosedForm {
    depth: i128,
    regeneration: i128,
    tmin: Option<i128>,
}

impl ClosedForm {
    pub fn new(tokens: u64, regeneration: u64) -> ClosedForm {
        let regeneration = i128::from(regeneration);
        ClosedForm {
            depth: (i128::from(tokens) - 1) * regeneration,
            regeneration,
            tmin: None,
        }
    }

    pub fn passes(&mut self, now: i128) -> bool {
        match self.tmin {
            None => self.tmin = Some(now - self.depth),
            Some(tmin) if now >= tmin => {
                self.tmin = Some((tmin + self.regeneration).max(now - self.depth));
            }
            Some(_) => return false,
        }
        true
    }
}

/// A bucket of bytes: what has passed and is not paid for at the rate is a debt, and no packet may
/// raise it above the burst; but one that is larger than the burst passes where there is no debt.
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    /// Units of 1/16 ns, at the time of the last packet.
    debt: i128,
    at: i128,
    /// Of a byte, times 1024.
    price: u128,
    burst: i128,
}

impl Bytes {
    /// Price and burst as `struct bucket` of policer.h has them.
    pub fn new(price: u64, burst: u64) -> Bytes {
        Bytes {
            debt: 0,
            at: 0,
            price: price.into(),
            burst: burst.into(),
        }
    }

    pub fn passes(&mut self, bytes: u64, now: i128) -> bool {
        self.debt = (self.debt - 16 * (now - self.at)).max(0);
        self.at = now;
        // In whole units, rounded up.
        let price = (u128::from(bytes) * self.price).div_ceil(1024) as i128;
        let fits = if price > self.burst {
            self.debt == 0
        } else {
            self.debt + price <= self.burst
        };
        if fits {
            self.debt += price;
        }
        fits
    }

    /// The time, in units of 1/16 ns, at which everything is paid for.
    pub fn paid(&self) -> i128 {
        16 * self.at + self.debt
    }
}
