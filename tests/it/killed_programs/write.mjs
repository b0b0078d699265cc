// Writes a file with a package of npm: node write.mjs KIND DIR TEXT. $times says how often. Each write has TEXT
// and its number.
import fs from 'node:fs/promises';
import path from 'node:path';

const [kind, dir, text] = process.argv.slice(2);
const times = process.env.times ?? '1';
const file = path.resolve(dir, 'data.json');
const json = JSON.stringify;

const kinds = {
  async 'write-file-atomic'() {
    const { default: writeFile } = await import('write-file-atomic');
    return (value) => writeFile(file, json(value));
  },
  async 'write-json-file'() {
    const { writeJsonFile } = await import('write-json-file');
    return (value) => writeJsonFile(file, value);
  },
  async atomically() {
    const { writeFile } = await import('atomically');
    return (value) => writeFile(file, json(value));
  },
  async conf() {
    const { default: Conf } = await import('conf');
    const conf = new Conf({ cwd: dir, configName: 'data' });
    return async (value) => { conf.store = value; };
  },
  async steno() {
    const { Writer } = await import('steno');
    const writer = new Writer(file);
    return (value) => writer.write(json(value));
  },
  async lowdb() {
    const { JSONFilePreset } = await import('lowdb/node');
    const db = await JSONFilePreset(file, {});
    return (value) => { db.data = value; return db.write(); };
  },
  async 'fs-safe'() {
    const { replaceFileAtomic } = await import('@openclaw/fs-safe/atomic');
    return (value) => replaceFileAtomic({ filePath: file, content: json(value) });
  },
  // The name that openclaw's session store gives to its temps.
  async 'fs-safe-sessions'() {
    const { replaceFileAtomic } = await import('@openclaw/fs-safe/atomic');
    const filePath = path.resolve(dir, 'sessions.json');
    return (value) => replaceFileAtomic({ filePath, content: json(value), tempPrefix: 'sessions.json' });
  },
  // Ends by SIGKILL once the copy fallback has removed the target, right before the target is created again.
  async 'fs-safe-copy'() {
    const { replaceFileAtomic } = await import('@openclaw/fs-safe/atomic');
    const open = (name, ...rest) => {
      if (name === file) process.kill(process.pid, 'SIGKILL');
      return fs.open(name, ...rest);
    };
    const fileSystem = { promises: { ...fs, open } };
    return (value) => replaceFileAtomic({
      filePath: file, content: json(value), copyFallbackOnPermissionError: true, fileSystem,
    });
  },
};

const write = await kinds[kind]();
for (let n = 0; n < Number(times); n++) await write({ text, n });
