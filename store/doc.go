// Package store keeps durable, verified chunks and blobs within a byte budget.
//
// It is the only place that writes content to a disk. Bytes live in plain files,
// so that they can be handed to sendfile; what is known about them lives in a
// badger index beside them. Nothing unverified is visible: a chunk enters only
// as a full [chunkindex.Buffer], which carries its own SHA-256, and a blob
// becomes readable only after the whole file hashed to its digest.
//
// It is no policy for what to fetch, from whom, or what may be shown to a
// client: levels and claims are recorded here, and judged by the fetcher. It
// knows nothing of registries, peers or repositories.
//
// # On disk
//
//	<dir>/LOCK                      flock; holds the owner's pid
//	<dir>/CLEAN                     there only between a clean stop and the next start
//	<dir>/RESERVE                   space kept for the index; given up when the disk is full
//	<dir>/blobs/<alg>/<2 hex>/<hex> complete blobs
//	<dir>/partial/<alg>/<hex>       blobs being fetched, sparse; chunk i at its own offset
//	<dir>/partial/<alg>/<hex>.put   a small object on its way to blobs/
//	<dir>/index/                    badger
//	<dir>/index.broken/             an index that could not be opened, the last one
//
// # Write orderings, and how each crash point is mended
//
// A chunk: (1) its bytes are written, (2) its record, with sum and level. Neither
// is fsynced. A process that dies between them leaves bytes that nothing points
// at; they are overwritten later. A machine that dies may keep the record and
// lose the bytes: therefore after an unclean stop no chunk is reported before it
// was read back and matches its recorded sum.
//
// A blob, from chunks or from [Store.Put]: (1) the file's bytes hashed to the
// digest, (2) fsync of the file, (3) rename into blobs/, (4) fsync of that
// directory, (5) record. The blob is durable after (4): a file under blobs/
// without a record is adopted at the next start, a record of a partial whose file
// has moved is completed. Only what the record adds (kind, pin, recency) may be
// lost with (5).
//
// A removal: (1) the file is unlinked, (2) the records are deleted. A record
// without a file is dropped at the next start. A power cut may bring the file
// back; it is then adopted again, which harms nobody.
//
// The clean mark: (1) every file written since the start is fsynced, (2) the
// index is closed, which syncs it, (3) CLEAN is written and fsynced. The next
// start removes CLEAN, fsyncs the directory, and only then writes anything else.
// A start that finds no CLEAN begins a new epoch: every chunk and blob whose
// record bears an older epoch must be proven once more before it is reported or
// its last byte goes out.
//
// The index's own log is written through a memory map and synced every few
// seconds by [Store.Run], and by [Store.Pin] and the datastore's Sync before they
// return. A process that dies loses none of it; a machine that dies loses what
// is younger than the last sync, and never a published blob. An index that does
// not open at all is set aside and built anew from blobs/; partial blobs and
// records are lost then, and fetched again.
//
// # Full disks
//
// Badger writes through memory maps, where a full disk is a SIGBUS that nobody
// can catch. So blocks for its log are allocated before it writes there, no index
// write starts while free space is below what a flush and a compaction may need,
// and a reserve file is given up when the disk runs full all the same. What
// remains is another process that fills the last bytes of the reserve while a
// compaction runs: the process then dies as by kill -9, and loses what that loses.
package store
