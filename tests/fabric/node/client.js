// Fabric's own client for Node. Its argument is JSON: where the peer is, who calls, and what to do; so is its answer.
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const grpc = require('@grpc/grpc-js');
const { checkpointers, connect, hash, signers } = require('@hyperledger/fabric-gateway');

const given = JSON.parse(process.argv[2]);
const read = (name) => fs.readFileSync(given[name]);
const text = (octets) => Buffer.from(octets).toString();

async function main() {
  const client = new grpc.Client(
    given.address,
    grpc.credentials.createSsl(Buffer.from(given.tls_ca), read('tls_key'), read('tls_certificate')),
    { 'grpc.ssl_target_name_override': 'localhost' },
  );
  const tls = new crypto.X509Certificate(read('tls_certificate'));
  const gateway = connect({
    client,
    identity: { mspId: given.msp_id, credentials: read('certificate') },
    signer: signers.newPrivateKeySigner(crypto.createPrivateKey(read('key'))),
    hash: hash.sha256,
    tlsClientCertificateHash: crypto.createHash('sha256').update(tls.raw).digest(),
  });
  const network = gateway.getNetwork('mesh');
  const contract = network.getContract(given.chaincode);
  const steps = {
    submit: async () => text(await contract.submitTransaction(...given.arguments)),
    evaluate: async () => text(await contract.evaluateTransaction(...given.arguments)),
    // a proposal that another client has made and signed
    endorse: async () => {
      const transaction = await gateway.newProposal(Buffer.from(given.proposal, 'base64')).endorse();
      await transaction.submit();
      return Buffer.from(transaction.getBytes()).toString('base64');
    },
    propose: async () => Buffer.from(contract.newProposal(given.arguments[0], { arguments: given.arguments.slice(1) }).getBytes()).toString('base64'),
    status: async () => (await gateway.newCommit(Buffer.from(given.commit, 'base64')).getStatus()).code,
    // as many at once as are asked for, each on keys of its own; for benchmarks/fabric.py
    load: async () => {
      await contract.submitTransaction('put', 'warm', '1');
      const begun = performance.now();
      const end = begun + given.seconds * 1000;
      const mark = `n${Date.now()}`;
      let transactions = 0;
      const failures = [];
      const caller = async (number) => {
        for (let count = 0; performance.now() < end; count++) {
          try {
            await contract.submitTransaction('put', `${mark}-${number}-${count}`, '1');
            transactions++;
          } catch (error) {
            failures.push(String(error));
          }
        }
      };
      await Promise.all([...Array(given.concurrency).keys()].map(caller));
      const seconds = (performance.now() - begun) / 1000;
      return { transactions, seconds, errors: failures.length, first_error: failures[0] ?? null };
    },
    events: async () => {
      const checkpoint = await checkpointers.file(given.checkpoint);
      const events = await network.getChaincodeEvents(given.chaincode, { checkpoint });
      const found = [];
      for await (const event of events) {
        found.push([event.eventName, text(event.payload), event.transactionId]);
        await checkpoint.checkpointChaincodeEvent(event);
        if (found.length === given.count) break;
      }
      events.close();
      return found;
    },
  };
  const answer = await steps[given.step]();
  gateway.close();
  client.close();
  console.log(JSON.stringify(answer));
}

main().catch((error) => {
  console.error(error, error.details);
  process.exit(1);
});
