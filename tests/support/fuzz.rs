//! Mutation tests of what reads bytes from elsewhere: real inputs, changed at random, for a second, or for as long as
//! `PILOTHOUSE_FUZZ_SECONDS` says. Each crate's tests take this file in by its path.
//!
//! The input of a case follows from its seed alone. A failure prints the seed and the input; `PILOTHOUSE_FUZZ_SEED` begins with it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};

/// The longest input, in bytes.
const LONGEST: usize = 64 * 1024;
/// Changes of one input, at most.
const CHANGES: u64 = 8;
/// What lengths, counts and separators go wrong at.
const EDGES: [u8; 16] = [0, 1, 2, 0x7f, 0x80, 0xff, 0xfe, b' ', b'\r', b'\n', b':', b'/', b'"', b'{', b'-', b'9'];

thread_local! {
    /// Panics on this thread, those included that a task of a runtime has swallowed.
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// Hands `check` the inputs of the corpus as they are, then changed ones until the time is over. It panics at what must not be.
pub fn run(name: &str, corpus: &[Vec<u8>], check: impl Fn(&[u8])) {
    count_panics();
    for input in corpus {
        guard(name, None, input, &check);
    }
    let began = Instant::now();
    let limit = Duration::from_secs(variable("PILOTHOUSE_FUZZ_SECONDS").unwrap_or(1));
    let mut seed = variable("PILOTHOUSE_FUZZ_SEED").unwrap_or(1);
    while began.elapsed() < limit {
        guard(name, Some(seed), &mutate(&mut Random(seed), corpus), &check);
        seed = seed.wrapping_add(1);
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}")))
}

fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with(|panics| panics.set(panics.get() + 1));
            before(info);
        }));
    });
}

fn guard(name: &str, seed: Option<u64>, input: &[u8], check: &impl Fn(&[u8])) {
    PANICS.with(|panics| panics.set(0));
    let outcome = catch_unwind(AssertUnwindSafe(|| check(input)));
    if PANICS.with(Cell::get) == 0 {
        return;
    }
    let again = seed.map_or_else(|| "an input of the corpus".to_owned(), |seed| format!("PILOTHOUSE_FUZZ_SEED={seed}"));
    let text = format!("{name}: {again}, {} bytes: {}", input.len(), input.escape_ascii());
    eprintln!("{text}");
    match outcome {
        Err(cause) => resume_unwind(cause),
        Ok(()) => panic!("a task of it panicked: {text}"),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): every seed is a good one.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`; 0 of nothing.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }

    fn range(&mut self, end: usize) -> std::ops::Range<usize> {
        let (one, other) = (self.below(end + 1), self.below(end + 1));
        one.min(other)..one.max(other)
    }
}

fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.next() % CHANGES {
        change(random, corpus, &mut input);
        input.truncate(LONGEST);
    }
    input
}

fn change(random: &mut Random, corpus: &[Vec<u8>], input: &mut Vec<u8>) {
    let at = random.below(input.len());
    match random.next() % 9 {
        0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
        1 if !input.is_empty() => input[at] = random.next() as u8,
        2 if !input.is_empty() => input[at] = EDGES[random.below(EDGES.len())],
        3 => input.truncate(at),
        4 => drop(input.drain(random.range(input.len()))),
        5 => {
            // Eight kilobytes reach beyond the limits that readers of heads have.
            let times = 1 << random.below(14);
            input.splice(at..at, std::iter::repeat_n(EDGES[random.below(EDGES.len())], times));
        }
        6 => {
            let piece = input[random.range(input.len())].to_vec();
            input.splice(at..at, piece);
        }
        7 => {
            let other = &corpus[random.below(corpus.len())];
            let piece = other[random.range(other.len())].to_vec();
            input.splice(at..at, piece);
        }
        _ => {
            let number = (random.next() >> random.below(64)).to_be_bytes();
            let width = 1 << random.below(4);
            let end = (at + width).min(input.len());
            input.splice(at..end, number[8 - width..].iter().copied());
        }
    }
}
