//! Which faults a mock plays when: a script of steps, read from JSON, and the play of it. The dice are those of a seed.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

/// What the mock demands, and the faults that it injects.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// The dice.
    pub seed: u64,
    /// How an event is answered that is there already.
    pub duplicates: Duplicates,
    /// What a request must prove, else it is answered 401.
    pub credentials: Credentials,
    /// One after the other. After the last there are no faults.
    pub steps: Vec<Step>,
    /// Whether the first step follows the last.
    pub repeat: bool,
}

/// How an event is answered that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duplicates {
    /// 200, as if it were new.
    #[default]
    Accept,
    /// 409.
    Conflict,
}

/// What a request must prove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Credentials {
    /// `Authorization: Bearer` with this token.
    pub bearer: Option<String>,
    /// `Authorization: Basic` with this `user:password`.
    pub basic: Option<String>,
    /// `X-Signature-256: sha256=HEX` over the body, under this key.
    pub hmac_key: Option<String>,
}

/// A period with the same faults; without a length it never ends.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    /// It ends after so many requests,
    pub requests: Option<u64>,
    /// or after so much time, whichever is first.
    pub milliseconds: Option<u64>,
    /// Each is tried in turn; latencies add up, of the rest the first is played.
    pub faults: Vec<Fault>,
}

/// A fault, and whom it hits.
#[derive(Clone, Debug, Deserialize)]
pub struct Fault {
    /// The share of requests, from 0 to 1.
    #[serde(default = "all")]
    pub share: f64,
    /// The share is one of keys: a key that is hit is hit by each of its requests.
    #[serde(default)]
    pub by_key: bool,
    /// What happens.
    #[serde(flatten)]
    pub kind: Kind,
}

fn all() -> f64 {
    1.0
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Kind {
    /// It is answered later by so much.
    Latency {
        /// How much.
        milliseconds: u64,
    },
    /// It is answered by a status, and forgotten.
    Status {
        /// The status code.
        status: u16,
        /// The header `Retry-After`.
        #[serde(default)]
        retry_after: Option<String>,
        /// The header `Location`.
        #[serde(default)]
        location: Option<String>,
        /// The body.
        #[serde(default)]
        body: String,
    },
    /// The connection is reset, and the event forgotten.
    Reset,
    /// The event is taken, and the connection reset before the answer.
    LostAnswer,
    /// The event is taken, and answered late.
    LateAnswer {
        /// How late.
        milliseconds: u64,
    },
    /// The event is taken, and the body of the answer drips for so long.
    SlowBody {
        /// How long.
        milliseconds: u64,
    },
}

impl Kind {
    /// What it is counted as.
    pub fn name(&self) -> String {
        match self {
            Self::Latency { .. } => "latency".to_owned(),
            Self::Status { status, .. } => format!("status-{status}"),
            Self::Reset => "reset".to_owned(),
            Self::LostAnswer => "lost-answer".to_owned(),
            Self::LateAnswer { .. } => "late-answer".to_owned(),
            Self::SlowBody { .. } => "slow-body".to_owned(),
        }
    }
}

impl Script {
    /// Reads a script; says what is wrong with it.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let script: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        for fault in script.steps.iter().flat_map(|step| &step.faults) {
            if !(0.0..=1.0).contains(&fault.share) {
                return Err(format!(
                    "the share {} does not lie between 0 and 1",
                    fault.share
                ));
            }
            if let Kind::Status { status, .. } = fault.kind
                && !(200..=999).contains(&status)
            {
                return Err(format!("{status} is no status of an answer"));
            }
        }
        let endless = |step: &Step| step.requests == Some(0) || step.milliseconds == Some(0);
        if script.steps.iter().any(endless) {
            return Err("a step has a length of 0".to_owned());
        }
        Ok(script)
    }
}

/// A script on its way.
#[derive(Debug)]
pub struct Play {
    script: Script,
    dice: ChaCha8Rng,
    step: usize,
    /// Requests of this step.
    requests: u64,
    /// When this step began.
    begun_ms: u64,
}

/// What is to be done with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// To wait first.
    pub latency_ms: u64,
    /// What happens then, if it is not the usual.
    pub fault: Option<Kind>,
}

impl Play {
    /// Begins; the time is that since any fixed moment.
    pub fn new(script: Script, now_ms: u64) -> Self {
        Self {
            dice: ChaCha8Rng::seed_from_u64(script.seed),
            script,
            step: 0,
            requests: 0,
            begun_ms: now_ms,
        }
    }

    /// The script.
    pub fn script(&self) -> &Script {
        &self.script
    }

    /// Which step is being played; none after the last.
    pub fn step(&self) -> Option<usize> {
        (self.step < self.script.steps.len()).then_some(self.step)
    }

    /// Decides on a request.
    pub fn decide(&mut self, key: &str, now_ms: u64) -> Decision {
        while self.is_over(now_ms) {
            self.step += 1;
            if self.script.repeat {
                self.step %= self.script.steps.len();
            }
            self.requests = 0;
            self.begun_ms = now_ms;
        }
        self.requests += 1;
        let mut decision = Decision::default();
        let Some(step) = self.script.steps.get(self.step) else {
            return decision;
        };
        for (number, fault) in (0..).zip(&step.faults) {
            let hit = if fault.by_key {
                of_key(self.script.seed ^ number, key).random_bool(fault.share)
            } else {
                self.dice.random_bool(fault.share)
            };
            match &fault.kind {
                Kind::Latency { milliseconds } if hit => decision.latency_ms += milliseconds,
                kind if hit && decision.fault.is_none() => decision.fault = Some(kind.clone()),
                _ => {}
            }
        }
        decision
    }

    fn is_over(&self, now_ms: u64) -> bool {
        self.script.steps.get(self.step).is_some_and(|step| {
            step.requests.is_some_and(|most| self.requests >= most)
                || step
                    .milliseconds
                    .is_some_and(|most| now_ms.saturating_sub(self.begun_ms) >= most)
        })
    }
}

/// The dice of a key: always the same.
fn of_key(seed: u64, key: &str) -> ChaCha8Rng {
    // FNV-1a, which is the same everywhere.
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    ChaCha8Rng::seed_from_u64(seed ^ hash)
}
