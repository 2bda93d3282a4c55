//! Which rows exist: a pure function of the seed, so that a run can be taken up again at any row.
//!
//! Events come in windows of 16 interleaved sessions of 4 events. Contents are numbered in the order in which they are
//! published: the first third before all events, then a few with each window, each with a session of its own in that very
//! window. A session is one user with one content on one device.

use rand::Rng;
use rand::SeedableRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use uuid::Uuid;

use crate::rows::{ContentRow, EventRow, LengthChange};
use crate::titles::title_and_slug;

/// Events of a window, which are written in one transaction with the contents that they introduce.
pub const WINDOW_EVENTS: u64 = WINDOW_SESSIONS * SESSION_EVENTS;
const WINDOW_SESSIONS: u64 = 16;
const SESSION_EVENTS: u64 = 4;
/// Contents published with each window, until there are no more.
const NEW_PER_WINDOW: u64 = 4;
/// An event may precede its content by this many contents to come, two to three windows.
const AHEAD: u64 = 2 * NEW_PER_WINDOW;
/// How far back a session that is played again may lie.
const REPLAY_REACH: u64 = 256;

const DEVICES: [&str; 6] = ["ios", "android", "web", "smart-tv", "car", "desktop"];
const VERSIONS: [&str; 4] = ["5.2.1", "5.3.0", "6.0.0-beta", "6.1.4"];

/// Distinguishes the random streams of the different kinds of rows.
#[derive(Clone, Copy)]
enum Kind {
    Content = 1,
    Session = 2,
    Event = 3,
    Change = 4,
    Missing = 5,
    Length = 6,
    Replay = 7,
    Age = 8,
}

/// All rows of a seed.
#[derive(Clone, Debug)]
pub struct Plan {
    contents: u64,
    missing_share: f64,
    base: ChaCha8Rng,
    /// The content at each rank of popularity.
    by_rank: Vec<u32>,
}

/// What the events of a session have in common.
struct Session {
    content_id: Option<Uuid>,
    content: Option<u64>,
    user_id: Option<Uuid>,
    device: Option<&'static str>,
    /// Of the session whose durations these are: its own, or that of the one played again.
    origin: u64,
}

impl Plan {
    /// A plan for `contents` contents (at least 1); `missing_share` of the sessions are about contents that never appear.
    pub fn new(seed: u64, contents: u32, missing_share: f64) -> Self {
        let contents = contents.max(1);
        let mut base = ChaCha8Rng::seed_from_u64(seed);
        let mut by_rank: Vec<u32> = (0..contents).collect();
        by_rank.shuffle(&mut base);
        Self {
            contents: contents.into(),
            missing_share: missing_share.clamp(0.0, 1.0),
            base,
            by_rank,
        }
    }

    /// How many contents there are once the run is over.
    pub fn contents(&self) -> u64 {
        self.contents
    }

    /// How many contents are published before the first event.
    pub fn contents_at_start(&self) -> u64 {
        self.contents.div_ceil(3)
    }

    /// How many contents are published with or before event number `index`.
    pub fn contents_before(&self, index: u64) -> u64 {
        let window = index / WINDOW_EVENTS;
        let later = (window + 1).saturating_mul(NEW_PER_WINDOW);
        self.contents_at_start()
            .saturating_add(later)
            .min(self.contents)
    }

    /// Content number `index`.
    pub fn content(&self, index: u64) -> ContentRow {
        let mut random = self.random(Kind::Content, index);
        let id = random_uuid(&mut random);
        let (title, slug) = title_and_slug(&mut random, index);
        let (content_type, length_seconds) = self.kind(index);
        ContentRow {
            id,
            slug,
            title,
            content_type,
            length_seconds,
            published_before_seconds: random
                .random_bool(0.95)
                .then(|| random.random_range(0..3 * 365 * 86_400)),
        }
    }

    /// Event number `index`.
    pub fn event(&self, index: u64) -> EventRow {
        let (window, place) = (index / WINDOW_EVENTS, index % WINDOW_EVENTS);
        let (number, step) = (
            window * WINDOW_SESSIONS + place % WINDOW_SESSIONS,
            place / WINDOW_SESSIONS,
        );
        let session = self.session(number);
        let mut random = self.random(Kind::Event, session.origin * SESSION_EVENTS + step);
        let event_type = match (step, random.random_range(0..4)) {
            (0, _) | (_, 0) => "play",
            (3, _) => "finish",
            (_, 1) => "click",
            _ => "pause",
        };
        let length = session.content.and_then(|content| self.kind(content).1);
        let heard = i64::from(length.unwrap_or(600)) * 250 * (step as i64 + 1);
        // A few listen longer than the content lasts.
        let duration = heard * random.random_range(1..=110) / 100;
        let no_duration = event_type == "click" || random.random_bool(0.05);
        let payload = random.random_bool(0.8).then(|| {
            json!({
                "session": format!("{:016x}", random.random::<u64>()),
                "app": VERSIONS.choose(&mut random),
                "position_ms": heard,
                "note": random.random_bool(0.1).then_some("استماع من السيارة 🎧"),
            })
        });
        // The time is the row's own: a session that is played again is not moved into the past.
        let mut age = self.random(Kind::Age, index);
        let age_micros = if age.random_bool(0.02) {
            age.random_range(0..30 * 86_400_000_000)
        } else {
            age.random_range(0..5_000_000)
        };
        EventRow {
            content_id: session.content_id,
            user_id: session.user_id,
            event_type,
            age_micros,
            duration_ms: (!no_duration).then(|| i32::try_from(duration).unwrap_or(i32::MAX)),
            device: session.device,
            raw_payload: payload,
        }
    }

    /// The change of a content's length that follows window number `window`, if any: one window in four has one.
    pub fn length_change_after(&self, window: u64) -> Option<LengthChange> {
        let mut random = self.random(Kind::Change, window);
        if !random.random_bool(0.25) {
            return None;
        }
        let published = self.contents_before(window * WINDOW_EVENTS);
        Some(LengthChange {
            id: self.content_id(random.random_range(0..published)),
            length_seconds: random
                .random_bool(0.95)
                .then(|| random.random_range(30..7_200)),
        })
    }

    fn session(&self, number: u64) -> Session {
        let mut random = self.random(Kind::Replay, number);
        let replayed = number > 0 && self.new_content(number).is_none() && random.random_bool(0.05);
        let back = if replayed {
            random.random_range(1..=REPLAY_REACH.min(number))
        } else {
            0
        };
        self.first_play(number - back)
    }

    /// The content that session `number` introduces: the first sessions of a window are those of the contents that come with it.
    fn new_content(&self, number: u64) -> Option<u64> {
        let (window, place) = (number / WINDOW_SESSIONS, number % WINDOW_SESSIONS);
        let content = self.contents_at_start() + window * NEW_PER_WINDOW + place;
        (place < NEW_PER_WINDOW && content < self.contents).then_some(content)
    }

    /// Session `number` as it was first played.
    fn first_play(&self, number: u64) -> Session {
        let mut random = self.random(Kind::Session, number);
        let user_id = random.random_bool(0.97).then(|| random_uuid(&mut random));
        let device = random
            .random_bool(0.95)
            .then(|| DEVICES.choose(&mut random).copied())
            .flatten();
        let published = self.contents_before(number / WINDOW_SESSIONS * WINDOW_EVENTS);
        let content = match self.new_content(number) {
            Some(content) => Some(content),
            None if random.random_bool(self.missing_share) => {
                let missing = random.random_range(0..=self.contents / 100);
                return Session {
                    content_id: Some(random_uuid(&mut self.random(Kind::Missing, missing))),
                    content: None,
                    user_id,
                    device,
                    origin: number,
                };
            }
            None if random.random_bool(0.01) => None,
            // Ahead of its content, which comes with one of the next windows.
            None if published < self.contents && random.random_bool(0.02) => {
                let ahead = random.random_range(0..AHEAD.min(self.contents - published));
                Some(published + ahead)
            }
            None => Some(self.popular(published, &mut random)),
        };
        Session {
            content_id: content.map(|content| self.content_id(content)),
            content,
            user_id,
            device,
            origin: number,
        }
    }

    /// A published content, chosen with a chance that falls as one over its rank of popularity.
    fn popular(&self, published: u64, random: &mut ChaCha8Rng) -> u64 {
        // At most 2^32 contents, which a float holds exactly.
        #[allow(clippy::cast_precision_loss)]
        let ranks = self.contents as f64 + 1.0;
        for _ in 0..16 {
            let rank = (random.random::<f64>() * ranks.ln()).exp() as usize;
            let content = self.by_rank.get(rank - 1).copied().map_or(0, u64::from);
            if content < published {
                return content;
            }
        }
        random.random_range(0..published)
    }

    /// The type of a content, and its length when it is published.
    fn kind(&self, index: u64) -> (&'static str, Option<i32>) {
        let mut random = self.random(Kind::Length, index);
        let (content_type, length) = match random.random_range(0..10) {
            0..5 => ("podcast", Some(random.random_range(300..7_200))),
            5..8 => ("video", Some(random.random_range(30..3_600))),
            // A newsletter has a length only where it is also read aloud.
            _ => (
                "newsletter",
                random
                    .random_bool(0.3)
                    .then(|| random.random_range(60..900)),
            ),
        };
        match random.random_range(0..200) {
            0 => (content_type, Some(0)),
            1..6 => (content_type, None),
            _ => (content_type, length),
        }
    }

    fn content_id(&self, index: u64) -> Uuid {
        random_uuid(&mut self.random(Kind::Content, index))
    }

    /// The random numbers of one row. Each row has its own stream, so that none depends on those before it.
    fn random(&self, kind: Kind, index: u64) -> ChaCha8Rng {
        let mut random = self.base.clone();
        random.set_stream(index << 4 | kind as u64);
        random.set_word_pos(0);
        random
    }
}

fn random_uuid(random: &mut ChaCha8Rng) -> Uuid {
    uuid::Builder::from_random_bytes(random.random()).into_uuid()
}
