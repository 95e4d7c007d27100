//! A tokenizer that a checkpoint has in two forms.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mistralrs_text::{Piece, TEKKEN, Tokenizer, from_tekken};

#[test]
fn ids_are_those_of_the_same_tokenizer_in_the_usual_form() {
    let model = fixtures::model("voxtral").unwrap();
    let read = |name: &str| std::fs::read(model.join(name)).unwrap();
    let expected = Tokenizer::new("tokenizer.json", &read("tokenizer.json"), &[]).unwrap();
    let found = Tokenizer::new(TEKKEN, &from_tekken(TEKKEN, &read(TEKKEN)).unwrap(), &[]).unwrap();
    assert_eq!(found.vocab_size(), expected.vocab_size());
    let texts =
        ["", "<s>[INST]What is there?[/INST]", "Привет, ça va? 😀  two  spaces\n\n\tand 1234 HELLO", "[AUDIO]</s><SPECIAL_20>"];
    for text in texts {
        let encode = |tokenizer: &Tokenizer| tokenizer.encode(&[Piece::Text(text.into())]).unwrap().ids;
        let ids = encode(&found);
        assert_eq!(ids, encode(&expected), "{text:?}");
        assert_eq!(found.decode(&ids, true).unwrap(), expected.decode(&ids, true).unwrap(), "{text:?}");
    }
}
