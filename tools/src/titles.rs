//! Titles of episodes, issues and films, in Arabic and English.

use std::fmt::Write;

use rand::Rng;
use rand::seq::IndexedRandom;

const ENGLISH_OPENINGS: [&str; 8] = [
    "The quiet rise of",
    "How we lost",
    "A short history of",
    "Inside",
    "What nobody says about",
    "Letters from",
    "The economics of",
    "Learning to love",
];
const ENGLISH_SUBJECTS: [(&str, &str); 10] = [
    ("coffee", "coffee"),
    ("the desert", "desert"),
    ("football money", "football-money"),
    ("reading", "reading"),
    ("small cities", "small-cities"),
    ("remote work", "remote-work"),
    ("the night shift", "night-shift"),
    ("Arabic type", "arabic-type"),
    ("public parks", "public-parks"),
    ("old cinemas", "old-cinemas"),
];
const ARABIC_OPENINGS: [&str; 8] = [
    "كيف نفهم",
    "حكاية",
    "لماذا نحب",
    "ما لا يقال عن",
    "رحلة إلى عالم",
    "مستقبل",
    "أسرار",
    "من ذاكرة",
];
const ARABIC_SUBJECTS: [(&str, &str); 10] = [
    ("القهوة السعودية", "qahwa"),
    ("الصحراء", "sahra"),
    ("كرة القدم", "kurat-qadam"),
    ("القراءة", "qiraa"),
    ("المدن الصغيرة", "mudun"),
    ("العمل عن بُعد", "amal-an-bud"),
    ("الذكاء الاصطناعي", "dhaka"),
    ("الخط العربي", "khatt"),
    ("الأسواق القديمة", "aswaq"),
    ("السينما", "cinema"),
];

/// Half of the titles are Arabic, and one in 300 is an essay: longer than what PostgreSQL keeps in line.
pub(crate) fn title_and_slug(random: &mut impl Rng, index: u64) -> (String, String) {
    let (mut title, slug) = if random.random_bool(0.5) {
        one_of(random, &ARABIC_OPENINGS, &ARABIC_SUBJECTS)
    } else {
        one_of(random, &ENGLISH_OPENINGS, &ENGLISH_SUBJECTS)
    };
    let essay = index % 300 == 299;
    while essay && title.len() < 12_000 {
        let (more, _) = one_of(random, &ARABIC_OPENINGS, &ARABIC_SUBJECTS);
        // The number keeps it from compressing to almost nothing.
        let _ = write!(title, " — {more} ({:x})", random.random::<u64>());
    }
    (title, format!("{slug}-{index}"))
}

fn one_of(random: &mut impl Rng, openings: &[&str], subjects: &[(&str, &str)]) -> (String, String) {
    let opening = openings.choose(random).copied().unwrap_or_default();
    let (subject, slug) = subjects.choose(random).copied().unwrap_or_default();
    (format!("{opening} {subject}"), slug.into())
}
