//! The tables of the shared queue, and what is asked of them. Times are seconds since 1970, but for the hold of a replica, which is by
//! the clock of the database.

/// One row for each job, each picture and each client. They are made in one transaction, by one server at a time. A file of a picture is not moved out of line compressed: it is compressed already.
pub(super) const TABLES: &str = "
    SET client_min_messages = warning;
    SELECT pg_advisory_xact_lock(7205759403792793601);
    CREATE TABLE IF NOT EXISTS ediffi_jobs (
        id uuid PRIMARY KEY, client text NOT NULL, model text NOT NULL, request text NOT NULL, previews bigint NOT NULL,
        created double precision NOT NULL, prompt text NOT NULL, seed text NOT NULL,
        state text NOT NULL DEFAULT 'queued', attempts integer NOT NULL DEFAULT 0,
        started double precision, ended double precision, error text, progress text, preview text,
        replica uuid, held timestamptz
    );
    CREATE INDEX IF NOT EXISTS ediffi_jobs_state ON ediffi_jobs (state, client, id);
    CREATE TABLE IF NOT EXISTS ediffi_images (
        job uuid NOT NULL REFERENCES ediffi_jobs(id) ON DELETE CASCADE, number bigint NOT NULL, image text NOT NULL, file bytea NOT NULL,
        PRIMARY KEY (job, number)
    );
    CREATE TABLE IF NOT EXISTS ediffi_clients (client text PRIMARY KEY, served double precision NOT NULL);
    DO $$ BEGIN
        IF (SELECT attstorage FROM pg_attribute WHERE attrelid = 'ediffi_images'::regclass AND attname = 'file') <> 'e' THEN
            ALTER TABLE ediffi_images ALTER COLUMN file SET STORAGE EXTERNAL;
        END IF;
    END $$;";

pub(super) const LOCK_QUEUE: &str = "SELECT pg_advisory_xact_lock(7205759403792793602)";

/// Jobs that wait, all and those of a client.
pub(super) const WAITING: &str =
    "SELECT count(*), count(*) FILTER (WHERE client = $1) FROM ediffi_jobs WHERE state = 'queued'";

pub(super) const ADD: &str = "INSERT INTO ediffi_jobs (id, client, model, request, previews, created, prompt, seed) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

/// The next job: of the client that was served least recently, its oldest. What another replica takes at the same time is skipped, and so
/// is what this one still draws, because it was taken for dead meanwhile.
pub(super) const TAKE: &str = "
    WITH taken AS (
        UPDATE ediffi_jobs SET state = 'running', started = $2, attempts = attempts + 1, replica = $1, held = now(), progress = NULL
        WHERE id = (
            SELECT waiting.id FROM ediffi_jobs waiting WHERE waiting.state = 'queued' AND waiting.id <> ALL($3)
            ORDER BY (SELECT served FROM ediffi_clients WHERE client = waiting.client) NULLS FIRST, waiting.id
            FOR UPDATE SKIP LOCKED LIMIT 1
        ) RETURNING id, client, model, request, previews
    ), turn AS (
        INSERT INTO ediffi_clients SELECT client, $2::double precision FROM taken
        ON CONFLICT (client) DO UPDATE SET served = excluded.served
    ) SELECT * FROM taken";

/// A finished picture of a job that this replica holds.
pub(super) const IMAGE: &str = "
    INSERT INTO ediffi_images (job, number, image, file)
    SELECT $1, $2, $3, $4 FROM ediffi_jobs WHERE id = $1 AND replica = $5 AND state = 'running'
    ON CONFLICT (job, number) DO UPDATE SET image = excluded.image, file = excluded.file";

/// The end of a job. Its request is forgotten: it may hold pictures.
pub(super) const END: &str = "
    UPDATE ediffi_jobs SET state = $2, error = $3, ended = $4, replica = NULL, preview = NULL, request = ''
    WHERE id = $1 AND state = 'running' AND replica = $5";

/// A job that this replica does not draw any more. That it was begun does not count.
pub(super) const GIVE_BACK: &str = "
    UPDATE ediffi_jobs SET state = 'queued', attempts = attempts - 1, started = NULL, replica = NULL, progress = NULL, preview = NULL
    WHERE id = $1 AND state = 'running' AND replica = $2";

/// A job is over at once. The replica that draws it sees that it holds it no more, and throws away what it still draws.
pub(super) const CANCEL: &str = "
    UPDATE ediffi_jobs SET state = 'cancelled', ended = $2, replica = NULL, preview = NULL, request = ''
    WHERE id = $1 AND state IN ('queued', 'running')";

pub(super) const REMOVE: &str = "DELETE FROM ediffi_jobs WHERE id = $1 AND state NOT IN ('queued', 'running')";

pub(super) const PICTURE: &str = "SELECT file FROM ediffi_images WHERE job = $1 AND number = $2";

/// A job as clients see it. Clients take turns: the position counts the rounds, and within a round who was served least recently.
pub(super) const JOBS: &str = "
    WITH rounds AS (
        SELECT id, client, row_number() OVER (PARTITION BY client ORDER BY id) AS round FROM ediffi_jobs WHERE state = 'queued'
    ),
    places AS (
        SELECT rounds.id, row_number() OVER (ORDER BY rounds.round, served NULLS FIRST, rounds.id) AS place
        FROM rounds LEFT JOIN ediffi_clients USING (client)
    )
    SELECT jobs.id, model, state, created, started, ended, prompt, seed, error, progress, preview, places.place,
        (SELECT coalesce(array_agg(image ORDER BY number), '{}') FROM ediffi_images WHERE job = jobs.id) AS images
    FROM ediffi_jobs jobs LEFT JOIN places ON places.id = jobs.id
    WHERE jobs.id = ANY($1) OR jobs.client = $2 ORDER BY jobs.id DESC";

pub(super) const DEPTH: &str = "
    SELECT count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state = 'running'),
        count(*) FILTER (WHERE state NOT IN ('queued', 'running')),
        (SELECT coalesce(sum(octet_length(file)), 0)::bigint FROM ediffi_images)
    FROM ediffi_jobs";

/// Renews the hold of a replica on a job, and writes how far it is. No row is one that it does not hold any more.
pub(super) const HOLD: &str = "
    UPDATE ediffi_jobs SET held = now(), progress = coalesce($3, progress), preview = coalesce($4, preview)
    WHERE id = $1 AND replica = $2 AND state = 'running'";

/// Jobs of replicas that are taken for dead wait again, or fail.
pub(super) const RECLAIM: &str = "
    UPDATE ediffi_jobs SET replica = NULL, progress = NULL, preview = NULL,
        state = CASE WHEN attempts >= $2 THEN 'failed' ELSE 'queued' END,
        ended = CASE WHEN attempts >= $2 THEN $3::double precision END,
        error = CASE WHEN attempts >= $2 THEN $4::text END
    WHERE state = 'running' AND held < now() - make_interval(secs => $1)";

/// Jobs that need not be kept any more: old ones, and the oldest of too many or too large ones.
pub(super) const SWEEP: &str = "
    DELETE FROM ediffi_jobs WHERE id IN (
        SELECT id FROM (
            SELECT id, ended, row_number() OVER (ORDER BY ended DESC, id DESC) AS number,
                sum(coalesce((SELECT sum(octet_length(file)) FROM ediffi_images WHERE job = jobs.id), 0))
                    OVER (ORDER BY ended DESC, id DESC) AS bytes
            FROM ediffi_jobs jobs WHERE ended IS NOT NULL
        ) kept WHERE ended < $1 OR number > $2 OR bytes > $3::bigint
    )";

/// Clients that were not served for so long that their turn does not matter.
pub(super) const SWEEP_CLIENTS: &str = "DELETE FROM ediffi_clients WHERE served < $1";
