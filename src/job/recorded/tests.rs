use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::time::{Duration, Instant};

use base64::Engine;
use fastrand::Rng;
use miniz_oxide::deflate::compress_to_vec_zlib;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::decode::{MAX_INFLATED, decode};
use super::encode::{Term, encode};
use super::term::*;
use crate::error::{Error, Result};

/// Far longer than any of it takes, so that a busy machine fails nothing.
const LONG: Duration = Duration::from_secs(20);

fn text(term: &[u8]) -> String {
    BASE64.encode([&[VERSION], term].concat())
}

fn term(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
    BASE64.decode(encode(value, DEFAULT_LIMIT).unwrap()).unwrap()[1..].to_vec()
}

fn read_term<T: DeserializeOwned>(term: &[u8]) -> Result<T> {
    decode(&text(term))
}

fn refusal<T: DeserializeOwned + Debug>(term: &[u8]) -> String {
    let error = read_term::<T>(term).unwrap_err();
    assert!(error.is_malformed());
    error.to_string()
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    let read: T = decode(&encode(&value, DEFAULT_LIMIT).unwrap()).unwrap();
    assert_eq!(read, value);
}

fn compressed(size: usize, stream: &[u8]) -> Vec<u8> {
    [&[tag::COMPRESSED], &(size as u32).to_be_bytes()[..], stream].concat()
}

fn compress(term: &[u8]) -> Vec<u8> {
    compressed(term.len(), &compress_to_vec_zlib(term, 6))
}

fn nested_lists(levels: usize) -> Value {
    (1..levels).fold(json!([]), |inner, _| json!([inner]))
}

/// `levels` lists, each but the innermost of one element.
fn nested_list_term(levels: usize) -> Vec<u8> {
    let mut term = b"l\0\0\0\x01".repeat(levels - 1);
    term.extend(b"j".repeat(levels));
    term
}

fn rich() -> Value {
    json!({
        "none": null, "yes": true, "no": false, "small": 200, "medium": -70_000, "big": u64::MAX, "low": i64::MIN,
        "float": -0.5, "text": "Grüße 🚀", "empty": [[], {}, ""], "deep": [[{"a": [1, {"b": [2]}]}]],
    })
}

#[test]
fn each_value_has_its_term() {
    assert_eq!(encode(&json!(null), DEFAULT_LIMIT).unwrap(), "g3MDbmls");
    assert_eq!(term(&json!([null, true, false])), b"l\0\0\0\x03s\x03nils\x04trues\x05falsej");
    assert_eq!(term(&json!([0, 255])), b"l\0\0\0\x02a\0a\xffj");
    assert_eq!(term(&json!([-1, 256, i32::MIN])), b"l\0\0\0\x03b\xff\xff\xff\xffb\0\0\x01\0b\x80\0\0\0j");
    assert_eq!(term(&2_147_483_648_i64), b"n\x04\0\0\0\0\x80");
    assert_eq!(term(&-4_294_967_297_i64), b"n\x05\x01\x01\0\0\0\x01");
    assert_eq!(term(&i64::MIN), b"n\x08\x01\0\0\0\0\0\0\0\x80");
    assert_eq!(term(&u64::MAX), b"n\x08\0\xff\xff\xff\xff\xff\xff\xff\xff");
    assert_eq!(term(&-0.0), b"F\x80\0\0\0\0\0\0\0");
    assert_eq!(term("é"), b"m\0\0\0\x02\xc3\xa9");
    assert_eq!(term(&json!([[], {}])), b"l\0\0\0\x02jt\0\0\0\0j");
}

#[test]
fn the_keys_of_a_map_are_sorted() {
    #[derive(Serialize)]
    struct Unsorted {
        b: u8,
        a: u8,
    }
    assert_eq!(term(&Unsorted { b: 1, a: 2 }), b"t\0\0\0\x02m\0\0\0\x01aa\x02m\0\0\0\x01ba\x01");
}

#[test]
fn a_value_over_the_limit_is_refused_with_both_sizes() {
    let value = "x".repeat(54);
    let error = encode(&value, 64).unwrap_err();

    assert_eq!(error.field(), Some("record"));
    assert_eq!(
        error.to_string(),
        "recorded value is 80 bytes, exceeds the limit of 64 bytes; record less or raise the limit"
    );
    assert_eq!(encode(&value, 80).unwrap().len(), 80);
    assert!(encode(&value, 79).is_err());
    assert!(encode(&(), 0).is_err());
}

#[test]
fn what_is_beyond_the_limit_is_counted_but_not_kept() {
    let mut term = Term::new(1000);
    term.value(&json!(vec!["x".repeat(100); 1000])).unwrap();
    assert_eq!(term.len, 105_006);
    assert!(term.bytes.len() <= 1000);
}

#[test]
fn a_value_that_is_no_json_is_refused() {
    let by_list = HashMap::from([(vec![1], 2)]);
    for error in [encode(&by_list, DEFAULT_LIMIT).unwrap_err(), encode(&u128::MAX, DEFAULT_LIMIT).unwrap_err()] {
        assert_eq!(error.field(), Some("record"), "{error}");
    }
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
enum Shape {
    Unit,
    Newtype(u32),
    Nothing(()),
    Tuple(i8, Option<String>),
    Struct { name: String, inner: Option<Box<Shape>> },
    List(Vec<Shape>),
}

#[derive(Serialize, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum Side {
    Left,
    Right,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct Id(i64);

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Marker;

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(tag = "kind")]
enum Tagged {
    On { since: u64 },
    Off,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Report {
    id: Id,
    marker: Marker,
    ratio: f32,
    letter: char,
    pair: (u8, String),
    by_number: HashMap<u32, Vec<i64>>,
    by_id: BTreeMap<Id, BTreeMap<i8, bool>>,
    by_side: BTreeMap<Side, Option<f64>>,
    by_flag: BTreeMap<bool, char>,
    shapes: Vec<Shape>,
    tagged: Vec<Tagged>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[test]
fn a_derived_type_reads_back_as_it_was() {
    let inner = Some(Box::new(Shape::Tuple(i8::MIN, None)));
    round_trip(Report {
        id: Id(-7),
        marker: Marker,
        ratio: 0.1,
        letter: '🚀',
        pair: (255, "nil".to_owned()),
        by_number: HashMap::from([(0, vec![]), (u32::MAX, vec![i64::MIN, i64::MAX])]),
        by_id: BTreeMap::from([(Id(-1), BTreeMap::from([(-128, true)])), (Id(10), BTreeMap::new())]),
        by_side: BTreeMap::from([(Side::Left, None), (Side::Right, Some(1.0))]),
        by_flag: BTreeMap::from([(true, 't'), (false, '"')]),
        shapes: vec![
            Shape::Unit,
            Shape::Newtype(u32::MAX),
            Shape::Nothing(()),
            Shape::Tuple(-1, Some(String::new())),
            Shape::Struct { name: "é\n".to_owned(), inner },
            Shape::List(vec![Shape::Unit, Shape::List(vec![])]),
        ],
        tagged: vec![Tagged::On { since: u64::MAX }, Tagged::Off],
        rest: BTreeMap::from([("more".to_owned(), rich())]),
    });
}

#[test]
fn scalars_read_back_as_they_were() {
    round_trip([i64::MIN, i64::from(i32::MIN) - 1, -1, 0, 256, i64::from(i32::MAX) + 1, i64::MAX]);
    round_trip([0, 255, 256, u64::from(u32::MAX), 1 << 63, u64::MAX]);
    round_trip([f64::MIN, f64::MAX, f64::MIN_POSITIVE, 5e-324, 0.1, 1e300, 1.0]);
    round_trip([f32::MIN, f32::MAX, f32::MIN_POSITIVE, 0.1, 1.0]);
    round_trip([Some(Some(1)), None]);
    round_trip(("true".to_owned(), "nil".to_owned(), 'x', (), true));

    let zero: f64 = decode(&encode(&-0.0, DEFAULT_LIMIT).unwrap()).unwrap();
    assert!(zero.is_sign_negative());
}

#[test]
fn an_integer_is_read_where_a_float_is_asked_for() {
    assert_eq!(read_term::<f64>(b"a\x01").unwrap(), 1.0);
    assert_eq!(read_term::<Vec<f32>>(b"k\0\x02\x01\x02").unwrap(), [1.0, 2.0]);
    assert!(read_term::<u8>(b"F\x3f\xf0\0\0\0\0\0\0").is_err());
}

#[test]
fn atoms_are_read_in_all_four_forms() {
    let forms: [&[u8]; 4] = [b"s\x03", b"w\x03", b"d\0\x03", b"v\0\x03"];
    for head in forms {
        assert_eq!(read_term::<Value>(&[head, b"nil"].concat()).unwrap(), json!(null));
        assert_eq!(read_term::<Option<u8>>(&[head, b"nil"].concat()).unwrap(), None);
        assert_eq!(read_term::<String>(&[head, b"abc"].concat()).unwrap(), "abc");
    }
    assert!(read_term::<bool>(b"w\x04true").unwrap());
    assert_eq!(read_term::<Side>(b"w\x04Left").unwrap(), Side::Left);
    assert_eq!(read_term::<String>(b"s\x01\xe9").unwrap(), "é", "the old atoms are Latin-1");
    assert_eq!(read_term::<String>(b"w\x02\xc3\xa9").unwrap(), "é");
}

#[test]
fn foreign_forms_of_lists_are_sequences() {
    assert_eq!(read_term::<Value>(b"k\0\x03abc").unwrap(), json!([97, 98, 99]));
    assert_eq!(read_term::<Vec<Option<Id>>>(b"k\0\x02s\x03").unwrap(), [Some(Id(115)), Some(Id(3))]);
    assert_eq!(read_term::<(String, u8)>(b"h\x02w\x02oka\x01").unwrap(), ("ok".to_owned(), 1));
    assert_eq!(read_term::<Value>(b"i\0\0\0\x01h\0").unwrap(), json!([[]]));
    assert!(refusal::<Value>(b"l\0\0\0\x01a\x01a\x02").ends_with("a list ends in tag 97, only proper lists are known"));
}

#[test]
fn foreign_numbers_are_read() {
    let float = [b"c1.50000000000000000000e+00".as_slice(), &[0; 5]].concat();
    assert_eq!(read_term::<f64>(&float).unwrap(), 1.5);
    assert_eq!(read_term::<u8>(b"o\0\0\0\x02\0\x07\0").unwrap(), 7);
    assert_eq!(read_term::<Value>(b"n\0\0").unwrap(), json!(0));
    assert_eq!(read_term::<i64>(b"n\x01\x01\x07").unwrap(), -7);

    let widest = [b"n\x10\0".as_slice(), &[0xff; 16]].concat();
    assert_eq!(read_term::<u128>(&widest).unwrap(), u128::MAX);
    let lowest = [b"n\x10\x01".as_slice(), &i128::MIN.to_le_bytes()].concat();
    assert_eq!(read_term::<i128>(&lowest).unwrap(), i128::MIN);

    assert!(refusal::<Value>(&widest).contains("number"));
    assert!(refusal::<i128>(&[b"n\x10\x01".as_slice(), &[0xff; 16]].concat()).ends_with("is beyond 128 bits"));
    assert!(refusal::<u128>(&[b"n\x11\0".as_slice(), &[1; 17]].concat()).ends_with("17 bytes is beyond 128 bits"));
    assert!(refusal::<f64>(&[b'c'; 32]).contains("is no float"));
}

#[test]
fn the_key_of_a_map_is_a_binary_an_atom_or_an_integer() {
    let map = b"t\0\0\0\x03w\x02oka\x01m\0\0\0\x01ka\x02n\x01\x01\x05a\x03";
    assert_eq!(read_term::<Value>(map).unwrap(), json!({"ok": 1, "k": 2, "-5": 3}));
    assert_eq!(read_term::<HashMap<i32, u8>>(b"t\0\0\0\x01b\xff\xff\xff\xffa\x01").unwrap()[&-1], 1);
    assert!(refusal::<Value>(b"t\0\0\0\x01ja\x01").contains("tag 106 is no key of a map"));
    assert!(refusal::<HashMap<u8, u8>>(b"t\0\0\0\x01m\0\0\0\x01xa\x01").contains("invalid type: string \"x\""));
}

#[test]
fn a_text_must_be_utf8() {
    assert!(refusal::<String>(b"m\0\0\0\x02a\xff").contains("a text is not UTF-8"));
    assert!(refusal::<Value>(b"w\x01\xe9").contains("a text is not UTF-8"));
    assert!(refusal::<Value>(b"t\0\0\0\x01m\0\0\0\x01\xffj").contains("a text is not UTF-8"));
}

#[test]
fn padding_is_tolerated() {
    assert_eq!(decode::<u8>("g2EB").unwrap(), 1);
    assert!(decode::<Vec<u8>>("g2o=").unwrap().is_empty());
    assert!(decode::<Vec<u8>>("g2o").unwrap().is_empty());
}

#[test]
fn what_is_no_term_at_all_is_an_error() {
    for encoded in ["", "=", "g", "g2E", "g2EB\n", "g2 EB", "g2EB====", "gw", "gmEB", "\0", "🚀"] {
        let error = decode::<Value>(encoded).unwrap_err();
        assert!(error.is_malformed(), "{encoded:?}: {error}");
    }
    let error = decode::<Value>("gmEB").unwrap_err();
    assert_eq!(error.to_string(), "recorded value is of version 130 at byte 0, only version 131 is known");
}

#[test]
fn an_error_says_what_was_found_and_where() {
    assert_eq!(refusal::<Value>(b"\x01"), "recorded value cannot be read at byte 1: tag 1 is unknown");
    assert_eq!(
        refusal::<Value>(b"l\0\0\0\x01m\0\0\0\x09ab"),
        "recorded value cannot be read at byte 6: 9 bytes are due, 2 remain"
    );
    assert_eq!(refusal::<Value>(b"a\x01jj"), "recorded value cannot be read at byte 3: 2 bytes follow the term");
    assert_eq!(
        refusal::<Vec<bool>>(b"l\0\0\0\x02s\x04truea\x01j"),
        "recorded value cannot be read at byte 12: invalid type: integer `1`, expected a boolean"
    );
}

#[test]
fn an_error_does_not_repeat_megabytes() {
    assert!(refusal::<u8>(&term(&"é".repeat(1_000_000))).len() < 1200);
}

#[test]
fn a_list_longer_than_asked_for_is_an_error() {
    assert!(refusal::<(u8, u8)>(b"h\x03a\x01a\x02a\x03").contains("invalid length 3, expected 2 elements"));
    assert!(refusal::<(u8, u8)>(b"h\x01a\x01").contains("invalid length 1"));
    assert!(refusal::<Shape>(b"t\0\0\0\x02m\0\0\0\x04Unitjm\0\0\0\x04Unitj").contains("is no enum, which has one"));
}

#[test]
fn a_truncated_term_is_an_error_at_every_cut() {
    for whole in [term(&rich()), compress(&term(&rich()))] {
        assert_eq!(read_term::<Value>(&whole).unwrap(), rich());
        for cut in 0..whole.len() {
            assert!(read_term::<Value>(&whole[..cut]).unwrap_err().is_malformed(), "cut at {cut}");
        }
    }
}

#[test]
fn a_huge_declared_length_is_refused_at_once() {
    for tag in [tag::LIST, tag::LARGE_TUPLE, tag::MAP, tag::BINARY, tag::LARGE_BIG, tag::COMPRESSED] {
        let hostile = [&[tag], [0xff; 5].as_slice()].concat();
        let started = Instant::now();
        refusal::<Value>(&hostile);
        refusal::<Vec<[u64; 32]>>(&hostile);
        refusal::<Shape>(&hostile);
        assert!(started.elapsed() < LONG, "tag {tag}");
    }
}

#[test]
fn nesting_is_read_up_to_the_limit() {
    let deepest = nested_lists(MAX_DEPTH);
    assert_eq!(term(&deepest), nested_list_term(MAX_DEPTH));
    round_trip(deepest);

    let message = format!("it nests deeper than {MAX_DEPTH} levels");
    let error = encode(&nested_lists(MAX_DEPTH + 1), DEFAULT_LIMIT).unwrap_err();
    assert_eq!(error.to_string(), format!("recorded value cannot be encoded: {message}"));
    assert!(refusal::<Value>(&nested_list_term(MAX_DEPTH + 1)).ends_with(&message));
    assert!(refusal::<IgnoredAny>(&nested_list_term(1_000_000)).ends_with(&message));
    assert!(refusal::<Value>(&b"h\x01".repeat(1_000_000)).ends_with(&message));
    assert!(refusal::<Shape>(&b"t\0\0\0\x01m\0\0\0\x04List".repeat(1_000_000)).contains("invalid type: map"));
    assert!(refusal::<Value>(&b"t\0\0\0\x01m\0\0\0\x01a".repeat(1_000_000)).ends_with(&message));
}

#[test]
fn nesting_in_a_recursive_type_is_refused_on_a_small_stack() {
    #[derive(Serialize, Deserialize, Default, Debug)]
    struct Link {
        next: Option<Box<Link>>,
    }
    let work = || {
        let mut chain = Link::default();
        (0..5_000).for_each(|_| chain = Link { next: Some(Box::new(std::mem::take(&mut chain))) });
        assert!(encode(&chain, DEFAULT_LIMIT).is_err());
        assert!(refusal::<Link>(&b"t\0\0\0\x01m\0\0\0\x04next".repeat(100_000)).contains("deeper than 128"));
        assert!(refusal::<Value>(&nested_list_term(100_000)).contains("deeper than 128"));
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(work).unwrap().join().unwrap();
}

#[test]
fn more_elements_than_are_allowed_are_refused() {
    let message = format!("it has more than {MAX_ELEMENTS} elements");
    let error = encode(&vec![(); MAX_ELEMENTS], usize::MAX).unwrap_err();
    assert_eq!(error.to_string(), format!("recorded value cannot be encoded: {message}"));

    let wide = [b"l".as_slice(), &(MAX_ELEMENTS as u32).to_be_bytes(), &b"j".repeat(MAX_ELEMENTS + 1)].concat();
    assert!(refusal::<Value>(&wide).ends_with(&message), "announced in one list");

    let lists = MAX_ELEMENTS / 65_536 + 1;
    let list = [b"k\xff\xff".as_slice(), &[7; 65_535]].concat();
    let many = [b"l".as_slice(), &(lists as u32).to_be_bytes(), &list.repeat(lists), b"j"].concat();
    assert!(refusal::<IgnoredAny>(&many).ends_with(&message), "in many lists together");
}

#[test]
fn a_compressed_term_is_read() {
    for value in [json!("x".repeat(1_000_000)), json!([]), rich()] {
        assert_eq!(read_term::<Value>(&compress(&term(&value))).unwrap(), value);
    }
}

#[test]
fn a_compressed_term_must_be_what_it_declares() {
    let plain = term(&rich());
    let stream = compress_to_vec_zlib(&plain, 6);
    let mut damaged = stream.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let longer = compress_to_vec_zlib(&[plain.as_slice(), b"j"].concat(), 6);
    for (hostile, message) in [
        (compressed(plain.len() - 1, &stream), "more than its declared"),
        (compressed(plain.len() + 1, &stream), "and 0 bytes follow"),
        (compressed(plain.len(), &[stream.as_slice(), b"j"].concat()), "and 1 bytes follow"),
        (compressed(plain.len(), &damaged), "Adler32Mismatch"),
        (compressed(plain.len() + 1, &longer), "at inflated byte"),
        (compressed(0, &compress_to_vec_zlib(b"", 6)), "at inflated byte 0"),
        (compressed(1, b"no zlib"), "zlib gives up"),
        (b"P\0\0".to_vec(), "its size is cut short"),
    ] {
        let error = refusal::<Value>(&hostile);
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_compressed_term_within_a_term_is_refused() {
    let inner = compress(&term(&rich()));
    let listed = [b"h\x01".as_slice(), &inner].concat();
    for hostile in [compress(&inner), compress(&listed), listed] {
        assert!(refusal::<Value>(&hostile).ends_with("a compressed term within another term"));
    }
}

#[test]
fn a_compressed_bomb_is_refused_fast() {
    let stream = compress_to_vec_zlib(&vec![0; 100_000_000], 1);
    for declared in [10, 100_000, MAX_INFLATED + 1, 100_000_000, u32::MAX as usize] {
        let bomb = compressed(declared, &stream);
        let started = Instant::now();
        refusal::<Value>(&bomb);
        assert!(started.elapsed() < LONG, "declared as {declared}");
    }
    let tiny = compressed(MAX_INFLATED, &stream[..100]);
    assert!(refusal::<Value>(&tiny).ends_with("it declares 64000000 bytes, 103200 are possible"));
}

fn random_text(rng: &mut Rng) -> String {
    let letters = ['a', 'b', '_', '"', '\\', '\n', '\0', 'é', '中', '🚀'];
    (0..rng.usize(..8)).map(|_| letters[rng.usize(..letters.len())]).collect()
}

fn random_tree(rng: &mut Rng, depth: usize) -> Value {
    match rng.u8(..if depth > 0 { 10 } else { 8 }) {
        0 => json!(null),
        1 => json!(rng.bool()),
        2 => json!(rng.u8(..)),
        3 => json!(rng.i64(..) >> rng.u8(..64)),
        4 => json!(rng.u64(..)),
        5 => json!(f64::from_bits(rng.u64(..))),
        6 => json!(rng.f64()),
        7 => json!(random_text(rng)),
        8 => (0..rng.usize(..5)).map(|_| random_tree(rng, depth - 1)).collect(),
        _ => (0..rng.usize(..5)).map(|_| (random_text(rng), random_tree(rng, depth - 1))).collect(),
    }
}

#[test]
fn random_trees_read_back_as_they_were() {
    let seed = fastrand::u64(..);
    let mut rng = Rng::with_seed(seed);
    for round in 0..1000 {
        let tree = random_tree(&mut rng, 5);
        let read: Value = decode(&encode(&tree, DEFAULT_LIMIT).unwrap()).unwrap();
        // As text too, since -0.0 equals 0.0.
        assert_eq!(read.to_string(), tree.to_string(), "seed {seed}, round {round}");
        assert_eq!(read, tree, "seed {seed}, round {round}");
    }
}

#[test]
fn random_damage_is_an_error_or_another_value_but_no_panic() {
    let seed = fastrand::u64(..);
    let mut rng = Rng::with_seed(seed);
    let tree = random_tree(&mut rng, 5);
    println!("seed {seed}");
    for whole in [term(&rich()), compress(&term(&rich())), term(&json!([tree])), term(&Shape::Tuple(1, None))] {
        for _ in 0..2000 {
            let mut damaged = whole.clone();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..damaged.len());
                damaged[at] = if rng.bool() { damaged[at] ^ 1 << rng.u8(..8) } else { rng.u8(..) };
            }
            let outcomes = [
                read_term::<Value>(&damaged).err(),
                read_term::<Report>(&damaged).err(),
                read_term::<Vec<Shape>>(&damaged).err(),
            ];
            assert!(outcomes.iter().flatten().all(Error::is_malformed));
        }
    }
}
