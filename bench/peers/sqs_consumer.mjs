// sqs-consumer as its README shows it: `single` with its defaults, `batch` with handleMessageBatch and ten a call.
import { SQSClient } from "@aws-sdk/client-sqs";
import { Consumer } from "sqs-consumer";

const [how, queueUrl] = process.argv.slice(2);
const routed = new Map();

function route(message) {
  const event = JSON.parse(message.Body);
  const model = event.detail.object.key.split("/")[1];
  routed.set(model, (routed.get(model) ?? 0) + 1);
}

const sqs = new SQSClient({});
const handlers =
  how === "batch"
    ? { batchSize: 10, handleMessageBatch: async (messages) => (messages.forEach(route), messages) }
    : { handleMessage: async (message) => (route(message), message) };
const consumer = Consumer.create({ queueUrl, sqs, ...handlers });
consumer.on("error", (error) => console.error(error));
consumer.on("processing_error", (error) => console.error(error));
consumer.start();
