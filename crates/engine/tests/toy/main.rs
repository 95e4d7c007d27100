//! The engine over a model whose answers depend on every token, position, media row and island that it should see.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::single_range_in_vec_init)]

mod model;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;

use mistralrs_engine::{
    CacheSize, Constraint, Engine, EngineConfig, EngineError, Event, Events, FinishReason, Mask, Request, Rows, Sampling, Stats,
};
use model::{ALL, CHUNK, ENDLESS, ERR, NAN, PANIC, SLOW, STATE, Toy, WINDOW};
use nn::{Array, LayerCache, Look, MediaInput, MediaKind, Placement, Positions, Prompt, Then};

fn small() -> EngineConfig {
    EngineConfig { block_size: 4, cache: CacheSize::Blocks(40), ..EngineConfig::new(100) }
}

fn start(config: EngineConfig) -> Engine {
    start_of(&[ALL], config)
}

fn start_of(layers: &[LayerCache], config: EngineConfig) -> Engine {
    Engine::start(Box::new(Toy::of(layers)), config).unwrap()
}

/// A prompt of tokens, with media of `rows` rows and `value` at these places; the item is an island.
fn prompt(tokens: Vec<u32>, media: &[(usize, usize, f32)]) -> Prompt {
    let mut prompt = Prompt::text(tokens);
    for &(at, rows, value) in media {
        let array = Array { shape: vec![1], data: vec![value] };
        let input = Arc::new(MediaInput::new(MediaKind::Image, rows, [("value", array)]));
        prompt.media.push(Placement::new(input, vec![at..at + rows]));
        prompt.islands.push(at..at + rows);
    }
    let rows = (0..prompt.tokens.len() as u32).map(|i| [i, i * 2, i]).collect();
    prompt.positions = Positions::Explicit { rows, next: 1000 };
    prompt
}

/// A prompt with a picture of `rows` rows that all look at, the tokens from `at` on otherwise than those before.
fn with_look(mut prompt: Prompt, at: usize, rows: usize, value: f32) -> Prompt {
    let array = Array { shape: vec![1], data: vec![value] };
    let input = Arc::new(MediaInput::new(MediaKind::Image, rows, [("value", array)]));
    let before = Look { tokens: 0..at, rows, then: Then::Nothing };
    let behind = Look { tokens: at..usize::MAX, rows: rows.div_ceil(2), then: Then::FeedForward };
    prompt.media.push(Placement { looks: vec![before, behind], ..Placement::new(input, vec![]) });
    prompt
}

fn request(prompt: Prompt, tokens_max: usize, seed: Option<u64>) -> Request {
    let temperature = if seed.is_some() { 1.0 } else { 0.0 };
    Request {
        prompt,
        sampling: Sampling { temperature, seed, top_p: 0.9, ..Sampling::default() },
        tokens_min: 0,
        tokens_max,
        stop_token_ids: vec![3],
        cache_salt: None,
        constraint: None,
    }
}

/// Everything that arrives: tokens, and how it ended.
fn collect(mut events: Events) -> (Vec<u32>, Result<FinishReason, EngineError>) {
    let mut tokens = Vec::new();
    loop {
        match events.blocking_recv() {
            Some(Event::Started { .. }) => {}
            Some(Event::Token { id, .. }) => tokens.push(id),
            Some(Event::Finished { reason, usage }) => {
                assert_eq!(usage.completion_tokens, tokens.len() + usize::from(matches!(reason, FinishReason::Stop { .. })));
                return (tokens, Ok(reason));
            }
            Some(Event::Failed(error)) => return (tokens, Err(error)),
            None => return (tokens, Err(EngineError::ShutDown)),
        }
    }
}

/// A request of random shape, which may begin like another.
fn random_request(random: &mut fastrand::Rng) -> Request {
    let begin = random.u32(4..7);
    let mut tokens: Vec<u32> = (0..random.u32(1..24)).map(|i| begin + i % 20).collect();
    let mut media = Vec::new();
    if random.bool() {
        media.push((tokens.len(), 9, begin as f32));
        tokens.extend([5; 9]);
    }
    tokens.extend((0..random.usize(1..16)).map(|_| random.u32(4..50)));
    for _ in 0..random.usize(0..2) {
        let rows = random.usize(1..12);
        media.push((tokens.len(), rows, random.u32(0..5) as f32 * 100.0));
        tokens.extend(vec![5; rows]);
        tokens.push(random.u32(4..50));
    }
    let seed = random.bool().then(|| random.u64(..));
    let mut prompt = prompt(tokens, &media);
    if random.u8(0..8) == 0 {
        let at = random.usize(1..=prompt.tokens.len());
        prompt = with_look(prompt, at, random.usize(1..9), random.u32(0..3) as f32 * 100.0);
    }
    request(prompt, random.usize(1..20), seed)
}

/// E8 of docs/reliability.md.
#[test]
fn answers_do_not_depend_on_who_else_runs() {
    // Layers, and blocks that are enough for one.
    let kinds: [(&[LayerCache], usize); 7] = [
        (&[ALL], 25),
        (&[ALL, WINDOW], 25),
        (&[ALL, STATE], 25),
        (&[WINDOW, STATE], 18),
        (&[ALL, WINDOW, STATE], 25),
        (&[ALL, CHUNK], 25),
        (&[WINDOW, CHUNK], 18),
    ];
    for (seed, (layers, enough)) in (1..).zip(kinds) {
        schedules(layers, enough, seed);
    }
}

/// Random requests, alone and together, in a cache that is too small for them.
fn schedules(layers: &[LayerCache], enough: usize, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut seen = Stats::default();
    for _ in 0..150 {
        let requests: Vec<Request> = (0..random.usize(2..9)).map(|_| random_request(&mut random)).collect();
        let alone = |r: &Request| collect(start_of(layers, EngineConfig::new(100)).submit(r.clone()).unwrap());
        let alone: Vec<_> = requests.iter().map(alone).collect();
        let config = EngineConfig {
            budget_tokens_max: random.usize(1..50),
            cache: CacheSize::Blocks(random.usize(enough..2 * enough)),
            sequences_max: random.usize(1..9),
            ..small()
        };
        let engine = start_of(layers, config);
        let cancelled: Vec<bool> = requests.iter().map(|_| random.u8(0..5) == 0).collect();
        let events: Vec<Events> = requests.iter().map(|r| engine.submit(r.clone()).unwrap()).collect();
        for ((events, expected), cancelled) in events.into_iter().zip(alone).zip(cancelled) {
            if cancelled {
                drop(events);
            } else {
                assert_eq!(collect(events), expected);
            }
        }
        let stats = engine.stats();
        seen.preemptions += stats.preemptions;
        seen.prefix_tokens += stats.prefix_tokens;
    }
    // What keeps windows and states alone needs no more as it goes on.
    assert!(seen.preemptions > 0 || !layers.contains(&ALL), "{layers:?} were never short of blocks");
    assert!(seen.prefix_tokens > 50, "{layers:?} found only {} tokens in the cache", seen.prefix_tokens);
}

#[test]
fn what_cannot_be_served_is_refused_at_once() {
    let engine = start(small());
    let base = || request(prompt(vec![4; 10], &[]), 5, None);
    let long = EngineError::ContextTooLong { tokens: 101, allowed: 100 };
    let cases: Vec<(Request, EngineError)> = vec![
        (Request { prompt: Prompt::text(vec![]), ..base() }, EngineError::EmptyPrompt),
        (Request { tokens_max: 91, ..base() }, long),
        (
            Request { tokens_max: 0, ..base() },
            EngineError::OutOfRange { field: "tokens_max", found: "0".into(), allowed: "at least 1" },
        ),
        (
            Request { prompt: prompt(vec![4, 61], &[]), ..base() },
            EngineError::UnknownToken { field: "prompt", id: 61, vocab: 61 },
        ),
        (
            Request { tokens_min: 6, ..base() },
            EngineError::OutOfRange { field: "min_tokens", found: "6".into(), allowed: "at most max_tokens" },
        ),
        (
            Request { sampling: Sampling { logit_bias: vec![(61, 1.0)], ..Sampling::default() }, ..base() },
            EngineError::UnknownToken { field: "logit_bias", id: 61, vocab: 61 },
        ),
        (
            Request { stop_token_ids: vec![u32::MAX], ..base() },
            EngineError::UnknownToken { field: "stop_token_ids", id: u32::MAX, vocab: 61 },
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(engine.submit(request).unwrap_err(), expected);
    }
    let wrong = Sampling { top_p: 2.0, ..Sampling::default() };
    assert!(matches!(engine.submit(Request { sampling: wrong, ..base() }), Err(EngineError::OutOfRange { field: "top_p", .. })));
}

#[test]
fn one_sequences_failure_is_nobody_elses() {
    let engine = start(small());
    let good = || request(prompt(vec![9, 8, 7, 6], &[]), 15, None);
    let expected = collect(engine.submit(good()).unwrap());
    let failing = [
        prompt(vec![4, ERR, 4], &[]),
        prompt(vec![4, PANIC, 4], &[]),
        prompt(vec![4, NAN, 4], &[]),
        prompt(vec![4, 5, 5, 4], &[(1, 2, -1.0)]),
        prompt(vec![4, 5, 5, 4], &[(1, 2, -2.0)]),
    ];
    for bad in failing {
        let before = engine.submit(good()).unwrap();
        let bad = engine.submit(request(bad, 5, None)).unwrap();
        let after = engine.submit(good()).unwrap();
        let (tokens, result) = collect(bad);
        assert!(
            tokens.is_empty()
                && matches!(result, Err(EngineError::Compute(_) | EngineError::Encode { .. } | EngineError::NotFinite)),
            "{result:?}"
        );
        assert_eq!((collect(before), collect(after)), (expected.clone(), expected.clone()));
    }
}

#[test]
fn a_picture_is_encoded_once() {
    let (toy, encodes) = Toy::new();
    let engine = Engine::start(Box::new(toy), small()).unwrap();
    let ask = |question: u32| request(prompt(vec![question, 5, 5, 5, 4], &[(1, 3, 7.0)]), 3, None);
    let first = collect(engine.submit(ask(9)).unwrap());
    assert_ne!(first, collect(engine.submit(ask(10)).unwrap()));
    assert_ne!(first, collect(engine.submit(ask(11)).unwrap()));
    assert_eq!(encodes.load(Ordering::Relaxed), 1);
    let other = request(prompt(vec![9, 5, 5, 5, 4], &[(1, 3, 8.0)]), 3, None);
    assert_ne!(first, collect(engine.submit(other).unwrap()));
    assert_eq!((encodes.load(Ordering::Relaxed), engine.stats().encoder_hits), (2, 2));
}

#[test]
fn a_prefix_is_computed_once() {
    // Layers, and what is found behind a picture that ends within a block; where there is a state, it is kept behind pictures only.
    let kinds: [(&[LayerCache], usize); 5] =
        [(&[ALL], 12), (&[ALL, WINDOW], 12), (&[ALL, CHUNK], 12), (&[ALL, STATE], 0), (&[WINDOW, STATE], 0)];
    for (layers, within) in kinds {
        prefixes(layers, within);
    }
}

fn prefixes(layers: &[LayerCache], within: usize) {
    let toy = Toy::of(layers);
    let encodes = toy.encodes.clone();
    let engine = Engine::start(Box::new(toy), EngineConfig { encodings_bytes_max: 0, ..small() }).unwrap();
    let ask = |question: u32, salt: Option<&str>| {
        let mut tokens = vec![7; 20];
        tokens.push(question);
        let prompt = prompt(tokens, &[(2, 13, 7.0)]);
        Request { cache_salt: salt.map(String::from), ..request(prompt, 3, None) }
    };
    // The picture ends within a block: its last row is computed again, and the picture encoded for it.
    let cut = |question: u32| {
        let mut tokens = vec![7; 15];
        tokens.push(question);
        request(prompt(tokens, &[(2, 13, 9.0)]), 3, None)
    };
    let cached = |events: &mut Events| match events.blocking_recv() {
        Some(Event::Started { cached_tokens }) => cached_tokens,
        other => panic!("{other:?}"),
    };
    // Question, salt, tokens in the cache, pictures encoded until then. Blocks are of 4 tokens, the picture takes 2 to 15.
    let cases =
        [(9, None, 0, 1), (9, None, 20, 1), (10, None, 20, 1), (9, Some("a"), 0, 2), (10, Some("a"), 20, 2), (11, None, 20, 2)];
    let mut answers = HashMap::new();
    for (question, salt, expected, encoded) in cases {
        let mut events = engine.submit(ask(question, salt)).unwrap();
        assert_eq!((cached(&mut events), question, salt), (expected, question, salt));
        let answer = collect(events);
        assert_eq!(answers.entry(question).or_insert_with(|| answer.clone()), &answer);
        assert_eq!(encodes.load(Ordering::Relaxed), encoded);
    }
    let stats = engine.stats();
    assert_eq!(stats.prefix_tokens, 80);
    let whole = collect(start_of(layers, small()).submit(cut(12)).unwrap());
    let mut first = engine.submit(cut(11)).unwrap();
    assert_eq!(cached(&mut first), 0);
    assert!(collect(first).1.is_ok());
    let mut second = engine.submit(cut(12)).unwrap();
    assert_eq!(cached(&mut second), within);
    assert_eq!(collect(second), whole);
}

#[test]
fn what_is_looked_at_is_found_again() {
    let (toy, encodes) = Toy::new();
    let engine = Engine::start(Box::new(toy), small()).unwrap();
    // Question, picture: tokens in the cache, pictures encoded until then. The first three tokens see the picture as well.
    let cases = [((9, 7.0), 0, 1), ((9, 7.0), 8, 1), ((10, 7.0), 8, 1), ((10, 8.0), 0, 2), ((9, 8.0), 8, 2)];
    let mut answers = Vec::new();
    for ((question, value), cached, encoded) in cases {
        let prompt = with_look(prompt([vec![7; 10], vec![question]].concat(), &[]), 3, 5, value);
        let mut events = engine.submit(request(prompt, 6, None)).unwrap();
        assert_eq!(events.blocking_recv(), Some(Event::Started { cached_tokens: cached }), "{question} {value}");
        answers.push(collect(events));
        assert_eq!(encodes.load(Ordering::Relaxed), encoded, "{question} {value}");
    }
    assert_eq!(answers[0], answers[1]);
    let different = [(0, 2), (2, 3), (3, 4), (0, 4)];
    assert!(different.iter().all(|(a, b)| answers[*a] != answers[*b]));
}

/// Lets an answer say these tokens; from `forced` on they need not be asked for.
#[derive(Debug, Clone)]
struct Script {
    tokens: Vec<u32>,
    forced: usize,
    said: usize,
}

impl Constraint for Script {
    fn mask(&mut self) -> Result<Mask, String> {
        let next = self.tokens[self.said];
        assert!(next != PANIC, "this token makes the constraint panic");
        if next == ERR {
            return Err("there is no way on".into());
        }
        let mut words = vec![0; 2];
        words[next as usize / 32] = 1 << (next % 32);
        Ok(Mask(words))
    }

    fn accept(&mut self, token: u32) -> Result<(), String> {
        assert_eq!(token, self.tokens[self.said]);
        self.said += 1;
        Ok(())
    }

    fn skip(&mut self) -> Vec<u32> {
        let from = self.said;
        if from < self.forced {
            return Vec::new();
        }
        self.said = self.tokens.len();
        self.tokens[from..].to_vec()
    }

    fn is_complete(&self) -> bool {
        self.said == self.tokens.len()
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[test]
fn a_constraint_says_what_may_come() {
    let engine = start(small());
    let plain = || request(prompt(vec![9, 8, 7, 6], &[]), 15, None);
    let expected = collect(engine.submit(plain()).unwrap());
    let probable = Sampling { logprobs: Some(1), ..Sampling::default() };
    // Script, from where it is forced, probabilities, tokens at most: what is said, and how it ends. 3 is the stop token.
    let failed = |reason: &str| Err(EngineError::Constraint(reason.into()));
    let cases = [
        (vec![10, 40, 11], 3, false, 9, vec![10, 40, 11], Ok(FinishReason::Complete)),
        (vec![10, 40, 11, 12], 1, false, 9, vec![10, 40, 11, 12], Ok(FinishReason::Complete)),
        (vec![10, 40, 11, 12], 1, true, 9, vec![10, 40, 11, 12], Ok(FinishReason::Complete)),
        (vec![10, 40, 11, 12], 1, false, 3, vec![10, 40, 11], Ok(FinishReason::Length)),
        (vec![10, 3, 11], 3, false, 9, vec![10], Ok(FinishReason::Stop { token: 3 })),
        (vec![10, 20, ERR], 3, false, 9, vec![10, 20], failed("there is no way on")),
        (vec![10, PANIC], 3, false, 9, vec![10], failed("it panicked")),
    ];
    for (tokens, forced, probabilities, tokens_max, said, end) in cases {
        let constraint: Box<dyn Constraint> = Box::new(Script { tokens: tokens.clone(), forced, said: 0 });
        let sampling = if probabilities { probable.clone() } else { Sampling::default() };
        let constrained = Request { constraint: Some(constraint), sampling, tokens_max, ..plain() };
        let neighbour = engine.submit(plain()).unwrap();
        let found = collect(engine.submit(constrained).unwrap());
        assert_eq!(found, (said, end), "{tokens:?}");
        assert_eq!(collect(neighbour), expected);
    }
}

/// Panics when it is told of a token.
#[derive(Debug)]
struct Broken;

impl Constraint for Broken {
    fn mask(&mut self) -> Result<Mask, String> {
        Ok(Mask(vec![u32::MAX]))
    }

    fn accept(&mut self, _: u32) -> Result<(), String> {
        panic!("this constraint is broken")
    }

    fn skip(&mut self) -> Vec<u32> {
        Vec::new()
    }

    fn is_complete(&self) -> bool {
        false
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(Self)
    }
}

/// E7 of docs/reliability.md.
#[test]
fn a_panic_within_a_step_ends_its_sequences_and_nothing_else() {
    let engine = start(small());
    let plain = || request(prompt(vec![9, 8, 7, 6], &[]), 15, None);
    let expected = collect(engine.submit(plain()).unwrap());
    for _ in 0..3 {
        let (neighbour, broken) = (plain(), Request { constraint: Some(Box::new(Broken)), ..plain() });
        let [neighbour, broken] = [neighbour, broken].map(|request| engine.submit(request).unwrap());
        assert!(matches!(collect(broken).1, Err(EngineError::Internal(_))));
        // It may have been in that step, or come later.
        let neighbour = collect(neighbour);
        assert!(neighbour == expected || matches!(neighbour.1, Err(EngineError::Internal(_))), "{neighbour:?}");
    }
    assert!(engine.is_running());
    assert_eq!(collect(engine.submit(plain()).unwrap()), expected);
}

#[test]
fn who_would_compute_the_same_waits_for_it() {
    let (permit, permits) = channel();
    let toy = Toy::waiting(permits);
    let engine = Engine::start(Box::new(toy), EngineConfig { budget_tokens_max: 8, ..small() }).unwrap();
    let ask = || engine.submit(request(prompt((0..30).map(|i| 4 + i).collect(), &[]), 4, None)).unwrap();
    let all: Vec<Events> = (0..4).map(|_| ask()).collect();
    drop(permit);
    let answers: Vec<_> = all.into_iter().map(collect).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    // 28 of the 30 tokens are in full blocks.
    assert_eq!((engine.stats().prompt_tokens, engine.stats().prefix_tokens), (30 + 3 * 2, 3 * 28));
}

/// E10 of docs/reliability.md.
#[test]
fn dropping_the_receiver_frees_the_blocks_and_dropping_the_engine_ends_all() {
    let (permit, permits) = channel();
    let toy = Toy::waiting(permits);
    let engine = Engine::start(Box::new(toy), EngineConfig { sequences_max: 1, ..small() }).unwrap();
    let long = || Request { stop_token_ids: vec![], ..request(prompt(vec![9; 10], &[]), 90, None) };
    let mut running = engine.submit(long()).unwrap();
    permit.send(()).unwrap();
    assert!(matches!(running.blocking_recv(), Some(Event::Started { .. })));
    assert!(matches!(running.blocking_recv(), Some(Event::Token { .. })));
    let waiting = engine.submit(long()).unwrap();
    drop(waiting);
    drop(running);
    drop(permit);
    let (tokens, result) = collect(engine.submit(long()).unwrap());
    assert_eq!((tokens.len(), result), (90, Ok(FinishReason::Length)));
    let generated = engine.stats().generated_tokens;
    assert!(generated <= 90 + 2, "{generated} tokens: the abandoned request went on for more than the step it was in");
    let mut unfinished = engine.submit(long()).unwrap();
    assert!(matches!(unfinished.blocking_recv(), Some(Event::Started { .. })));
    drop(engine);
    let ended = collect(unfinished).1;
    assert!(matches!(ended, Err(EngineError::ShutDown) | Ok(FinishReason::Length)), "{ended:?}");
}

#[test]
fn others_write_while_a_picture_is_encoded() {
    let engine = start(small());
    let writer = || Request { stop_token_ids: vec![], ..request(prompt(vec![9; 10], &[]), 40, None) };
    let about = |value: f32| request(prompt(vec![9, 5, 5, 5, 4], &[(1, 3, value)]), 3, None);
    let expected = collect(engine.submit(writer()).unwrap());
    // Without anyone who writes this picture would take for ever.
    let [before, picture, after] = [writer(), about(SLOW), writer()].map(|request| engine.submit(request).unwrap());
    assert_eq!((collect(before), collect(after)), (expected.clone(), expected.clone()));
    assert_eq!(collect(picture).0.len(), 3);
    // Whoever does not want the answer ends the encoding, and so does the end of the engine.
    let abandoned = engine.submit(about(ENDLESS)).unwrap();
    assert_eq!(collect(engine.submit(writer()).unwrap()), expected);
    drop(abandoned);
    assert_eq!(collect(engine.submit(about(7.0)).unwrap()).0.len(), 3);
    let unfinished = engine.submit(about(ENDLESS)).unwrap();
    drop(engine);
    assert_eq!(collect(unfinished).1, Err(EngineError::ShutDown));
}

/// E9 of docs/reliability.md.
#[test]
fn media_are_encoded_without_an_answer() {
    let (toy, encodes) = Toy::new();
    let engine = Engine::start(Box::new(toy), small()).unwrap();
    let item = |value: f32| prompt(vec![9, 5, 5, 5, 4], &[(1, 3, value)]).media[0].input.clone();
    let rows = |value: f32| engine.encode(item(value)).unwrap().blocking_recv().unwrap();
    assert_eq!(rows(7.0), Ok(Rows { width: 1, values: vec![7.0, 8.0, 9.0] }));
    assert_eq!(rows(7.0), rows(7.0));
    assert_eq!(encodes.load(Ordering::Relaxed), 1, "what was encoded is remembered");
    for failing in [-1.0, -2.0] {
        assert!(matches!(rows(failing), Err(EngineError::Encode { item: 0, .. })));
    }
    // Others are answered meanwhile; whoever does not want it ends it.
    let abandoned = engine.encode(item(ENDLESS)).unwrap();
    assert_eq!(collect(engine.submit(request(prompt(vec![9; 10], &[]), 4, None)).unwrap()).0.len(), 4);
    drop(abandoned);
    assert_eq!(rows(2.0).unwrap().values, [2.0, 3.0, 4.0]);
    let unfinished = engine.encode(item(ENDLESS)).unwrap();
    drop(engine);
    assert!(!matches!(unfinished.blocking_recv(), Ok(Ok(_))));
}

#[test]
fn a_full_queue_refuses() {
    let engine = start(EngineConfig { sequences_max: 1, queue_max: 2, ..small() });
    let long = || Request { stop_token_ids: vec![], ..request(prompt(vec![9; 10], &[]), 90, None) };
    let submitted: Vec<_> = (0..60).map(|_| engine.submit(long())).collect();
    assert!(submitted.iter().any(|s| matches!(s, Err(EngineError::Overloaded { .. }))));
    for events in submitted.into_iter().flatten() {
        assert_eq!(collect(events).1, Ok(FinishReason::Length));
    }
    assert!(engine.submit(long()).is_ok());
}
