//! Any bytes as an event stream: the chunks make no difference to the decoder, and the cutter loses no byte.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_gateway_broker::protocol::sse::{Decoder, Event};
use mcp_gateway_broker::protocol::sse_blocks::{Blocks, Piece, event, with_data};

fn decoded<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Event>> {
    let (mut decoder, mut events) = (Decoder::default(), Vec::new());
    for chunk in chunks {
        events.extend(decoder.push(chunk).ok()?);
    }
    events.extend(decoder.finish().ok()?);
    Some(events)
}

fn cut<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Vec<Piece> {
    let mut blocks = Blocks::new(1 << 20);
    let mut pieces: Vec<Piece> = chunks.flat_map(|chunk| blocks.push(chunk, false)).collect();
    pieces.extend(blocks.push(&[], true));
    pieces
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, stream)) = bytes.split_first() else { return };
    let size = usize::from(*first).max(1);
    let whole = decoded(std::iter::once(stream));
    assert_eq!(decoded(stream.chunks(size)), whole);
    let pieces = cut(stream.chunks(size));
    let joined: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| match piece {
            Piece::Whole(bytes) | Piece::Part(bytes) => bytes.clone(),
        })
        .collect();
    assert_eq!(joined, stream);
    for piece in &pieces {
        if let Piece::Whole(block) = piece
            && let Some(found) = event(block)
        {
            let rewritten = event(&with_data(block, "{}")).expect("still an event");
            assert_eq!((rewritten.data.as_str(), rewritten.id), ("{}", found.id));
        }
    }
});
