import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.zip.CRC32;

/** A program of several threads, maps and garbage; prints checksums that depend only on its arguments. */
public final class Pages {
    private static final int WORKERS = 3;

    private static long mix(long x) {
        x += 0x9e3779b97f4a7c15L;
        x = (x ^ x >>> 30) * 0xbf58476d1ce4e5b9L;
        x = (x ^ x >>> 27) * 0x94d049bb133111ebL;
        return x ^ x >>> 31;
    }

    private static byte[] block(long key) {
        byte[] data = new byte[500 + (int) (key >>> 40) % 8000];
        for (int i = 0; i < data.length; i++) {
            if (i % 8 == 0) {
                key = mix(key);
            }
            data[i] = (byte) (key >>> 8 * (i % 8));
        }
        return data;
    }

    private static long work(long id, long bytes) {
        Map<Long, byte[]> blocks = new HashMap<>();
        List<Long> keys = new ArrayList<>();
        long used = 0;
        for (long n = 0; used < bytes; n++) {
            long key = mix(id << 32 | n);
            byte[] data = block(key);
            blocks.put(key, data);
            keys.add(key);
            used += data.length;
        }
        CRC32 sum = new CRC32();
        for (int round = 0; round < 2; round++) {
            for (long key : keys) {
                byte[] data = blocks.get(key);
                if (!java.util.Arrays.equals(data, block(key))) {
                    throw new IllegalStateException("block " + key + " has lost its data");
                }
                sum.update(data);
            }
            System.gc();
        }
        return sum.getValue();
    }

    public static void main(String[] arguments) throws Exception {
        long bytes = Long.parseLong(arguments[0]) << 20;
        ExecutorService threads = Executors.newFixedThreadPool(WORKERS);
        List<Future<Long>> sums = new ArrayList<>();
        for (int id = 0; id < WORKERS; id++) {
            final long worker = id;
            Callable<Long> task = () -> work(worker, bytes / WORKERS);
            sums.add(threads.submit(task));
        }
        for (Future<Long> sum : sums) {
            System.out.println("checksum " + sum.get());
        }
        threads.shutdown();
    }
}
